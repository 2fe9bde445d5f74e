"""A Store from the addresses of its services."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

from tvix_store.config.address import Address
from tvix_store.config.schemes import has_no_place, open_address, prepare
from tvix_store.model.signature import PublicKey
from tvix_store.model.store_path import check_store_dir
from tvix_store.services.nar import NarService
from tvix_store.services.path_infos import PathInfoService
from tvix_store.services.store import POWERS, Service, ServiceChecks, Store

DEFAULT_ADDRESS = "local://"
"""The embedded store in the user's data directory."""


async def open_store(
    address: str | None = None,
    *,
    blobs: str | None = None,
    directories: str | None = None,
    path_infos: str | None = None,
    store_dir: str | None = None,
    substituters: Sequence[str] = (),
    substituter_public_keys: Sequence[PublicKey] = (),
    as_worker: bool = False,
) -> Store:
    """Open the store at `address`, a URL or a path; by default the embedded store in the user's data directory.

    `blobs`, `directories` and `path_infos` are addresses of single services that stand elsewhere. `store_dir` is the directory of
    Nix's store: by default the one that the store was made for, and `/nix/store` for a new one. It is a part of what a store path
    stands for, so a local store takes no other one than it was made for.
    `substituters` are the URLs of binary caches in which paths are looked for that the store lacks; what they give must be signed
    by one of `substituter_public_keys`, or of those in their URL. The address of a cache as `path_infos` means the same.
    A process that does one thing after the other opens it `as_worker` (of a pool): then local stores use no threads.

    Raises:
        InvalidError: an address is malformed, or of an unknown scheme.
        DeniedError, UnavailableError, ExhaustedError, CorruptError: a store cannot be opened.
    """
    if store_dir is not None:
        check_store_dir(store_dir)
    everywhere = address or DEFAULT_ADDRESS
    if path_infos and has_no_place(path_infos):
        # A cache elsewhere: what comes from there is kept beside its content.
        substituters, path_infos = (path_infos, *substituters), directories
    chosen = [blobs or everywhere, directories or everywhere, path_infos or everywhere]
    stores: dict[str, Store] = {}
    async with AsyncExitStack() as opened:
        for each in dict.fromkeys(chosen):
            # Content is the same below every store directory; path infos are not.
            its_store_dir = store_dir if each == chosen[2] else None
            opening = open_address(
                each, store_dir=its_store_dir, substituter_public_keys=substituter_public_keys, as_worker=as_worker
            )
            stores[each] = await opened.enter_async_context(await opening)
        store = stores[chosen[0]] if len(stores) == 1 else _composed(*(stores[each] for each in chosen))
        if store_dir is not None:
            store = replace(store, store_dir=store_dir)
        if substituters:
            from tvix_store.config.substituters import fetch_lock, with_substituters

            store = await with_substituters(store, substituters, substituter_public_keys, fetch_lock(chosen[2]))
        opened.pop_all()  # what is open stays open, unless a later one has failed
    return store


def prepare_for_crew(addresses: Iterable[str | None]) -> bool:
    """Whether more processes would help with stores at these addresses (None: the default one); then what opens them is imported.

    They would where a store is a directory on this machine, and who opens it does its work.
    """
    texts = {address or DEFAULT_ADDRESS for address in addresses}
    shares = all(Address.parse(text).scheme == "local" for text in texts)
    if shares:
        for text in texts:
            prepare(text)
    return shares


def verified(
    store: Store,
    keys: Sequence[PublicKey] = (),
    *,
    require_signatures: bool = False,
    require_references: bool = False,
    trust_nar: bool = True,
) -> Store:
    """The store, taking only path infos that are true of its content, and whose content addresses and signatures by `keys` hold.

    With `require_signatures`, a path that does not follow from its content needs one of these signatures. With
    `require_references`, the paths that it refers to must be in the store. Without `trust_nar`, the size and hash of a NAR are not
    taken from a server's word: they are computed here, from content that is checked against its digests.
    """
    from tvix_store.layers.closed import ClosedPathInfos
    from tvix_store.layers.signature_policy import SignaturePolicy
    from tvix_store.layers.verifying import VerifyingPathInfos

    if not (trust_nar or store.nar.learns):
        store = store.with_services(nar=_remembering_nar(store, store))
    path_infos: PathInfoService = SignaturePolicy(store, keys, required=require_signatures)
    path_infos = VerifyingPathInfos(path_infos, store.nar)
    if require_references:
        # References first: to look them up costs little, to calculate a NAR much.
        path_infos = ClosedPathInfos(store, path_infos)
    # They check what is put, and change nothing of what is there.
    return store.with_services(path_infos=path_infos, keep=("statistics", "find_path"))


def read_only(store: Store) -> Store:
    """The store, taking nothing. It may remember what it works out from its content: that is all that `records` takes."""
    from tvix_store.layers.read_only import ReadOnlyBlobs, ReadOnlyDirectories, ReadOnlyPathInfos, ReadOnlyRecords

    reading = store.with_services(
        blobs=ReadOnlyBlobs(store.blobs),
        directories=ReadOnlyDirectories(store.directories),
        path_infos=ReadOnlyPathInfos(store.path_infos),
        records=None if store.records is None else ReadOnlyRecords(store.records),
        keep=("frames", "statistics", "find_path"),
    )
    return replace(reading, read_only=True)


def _composed(blobs: Store, directories: Store, path_infos: Store) -> Store:
    from tvix_store.layers.syncing import SyncingPathInfos

    distinct = list({id(store): store for store in (blobs, directories, path_infos)}.values())
    sync = _each([store.sync for store in distinct if store is not path_infos])
    content = blobs if blobs is directories else None
    of: dict[Service, Store | None] = {
        "blobs": blobs,
        "directories": directories,
        "path_infos": path_infos,
        "nar": content,
        "records": path_infos,
    }
    return Store(
        blobs=blobs.blobs,
        directories=directories.directories,
        path_infos=SyncingPathInfos(path_infos.path_infos, sync),
        nar=_remembering_nar(blobs, directories) if content is None else content.nar,
        records=path_infos.records,
        links=path_infos.links,
        foreign_documents=path_infos.foreign_documents,
        store_dir=path_infos.store_dir,
        size_rule=directories.size_rule,
        check=_each([store.check for store in distinct]),
        service_checks=ServiceChecks(blobs.check, directories.check, path_infos.check),
        sync=_each([store.sync for store in distinct]),
        close=_each([store.close for store in distinct]),
        **_powers(of),
    )


def _powers(of: Mapping[Service, Store | None]) -> dict[str, Any]:
    """The powers whose services are all `of` one store."""
    powers: dict[str, Any] = {}
    for name, services in POWERS.items():
        owner, *others = (of[service] for service in services)
        if owner is not None and all(other is owner for other in others):
            powers[name] = getattr(owner, name)
    return powers


def _remembering_nar(blobs: Store, directories: Store) -> NarService:
    from tvix_store.layers.nar_cache import MemoryNarCache
    from tvix_store.layers.remembering_nar import RememberingNarService

    return RememberingNarService(blobs.blobs, directories.directories, MemoryNarCache())


def _each(calls: list[Callable[[], Awaitable[None]]]) -> Callable[[], Awaitable[None]]:
    async def call_each() -> None:
        async with AsyncExitStack() as stack:  # every one is called, even where one raises
            for call in calls:
                stack.push_async_callback(call)

    return call_each
