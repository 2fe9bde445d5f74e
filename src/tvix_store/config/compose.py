"""A Store from the addresses of its services."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace

from tvix_store.config.address import Address
from tvix_store.config.schemes import has_no_place, open_address, prepare
from tvix_store.model.signature import PublicKey
from tvix_store.model.store_path import check_store_dir
from tvix_store.services.nar import NarService
from tvix_store.services.staging import Staging
from tvix_store.services.store import ServiceChecks, Store

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
        store = replace(store, nar=_remembering_nar(store, store))
    checked = SignaturePolicy(store, keys, required=require_signatures)
    store = replace(store, path_infos=VerifyingPathInfos(checked, store.nar))
    # References first: to look them up costs little, to calculate a NAR much.
    return replace(store, path_infos=ClosedPathInfos(store)) if require_references else store


def read_only(store: Store) -> Store:
    """The store, taking nothing."""
    from tvix_store.layers.read_only import ReadOnlyBlobs, ReadOnlyDirectories, ReadOnlyPathInfos

    return replace(
        store,
        blobs=ReadOnlyBlobs(store.blobs),
        directories=ReadOnlyDirectories(store.directories),
        path_infos=ReadOnlyPathInfos(store.path_infos),
        lone_files=None,
        staging=None,
        assembling=None,
        read_only=True,
    )


def _composed(blobs: Store, directories: Store, path_infos: Store) -> Store:
    from tvix_store.layers.syncing import SyncingPathInfos

    distinct = {id(store): store for store in (blobs, directories, path_infos)}.values()
    sync = _each([store.sync for store in distinct if store is not path_infos])
    return Store(
        blobs=blobs.blobs,
        directories=directories.directories,
        path_infos=SyncingPathInfos(path_infos.path_infos, sync),
        nar=_nar(blobs, directories),
        records=path_infos.records,
        find_path=path_infos.find_path,
        frames=blobs.frames,
        staging=_staging(blobs, path_infos) if blobs is directories else None,
        assembling=blobs.assembling,
        store_dir=path_infos.store_dir,
        size_rule=directories.size_rule,
        check=_each([store.check for store in distinct]),
        service_checks=ServiceChecks(blobs.check, directories.check, path_infos.check),
        epoch=blobs.epoch,
        sync=_each([store.sync for store in distinct]),
        close=_each([store.close for store in distinct]),
    )


def _staging(content: Store, path_infos: Store) -> Staging | None:
    if content.staging is None or content is path_infos or path_infos.records is None:
        return content.staging
    from tvix_store.layers.staging_beside import StagingBeside

    return StagingBeside(content.staging, path_infos.records)


def _nar(blobs: Store, directories: Store) -> NarService:
    """A store that has all content knows its NARs; else they are rendered here, and remembered while we run."""
    if blobs is directories:
        return blobs.nar
    return _remembering_nar(blobs, directories)


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
