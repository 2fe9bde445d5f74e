"""A Store from the addresses of its services."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

from tvix_store.config.scheme import Opening
from tvix_store.config.schemes import open_address, scheme_of
from tvix_store.errors import DeniedError, UnsupportedError
from tvix_store.layers.composing import composed
from tvix_store.model.address import Address, without_secrets
from tvix_store.model.signature import PublicKey
from tvix_store.model.store_path import check_store_dir
from tvix_store.services.offer import Offer, Service
from tvix_store.services.path_infos import PathInfoService
from tvix_store.services.store import Store, wanted_store

S = TypeVar("S", bound=Store)
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
    create: bool = True,
    scrub_days: float = 0,
    as_worker: bool = False,
) -> Store:
    """Open the store at `address`, a URL or a path; by default the embedded store in the user's data directory.

    `blobs`, `directories` and `path_infos` are addresses of single services that stand elsewhere. `store_dir` is the directory of
    Nix's store: by default the one that the store was made for, and `/nix/store` for a new one. It is a part of what a store path
    stands for, so a local store takes no other one than it was made for.
    `substituters` are the URLs of binary caches from which missing paths are fetched. A path must be signed by a key in the
    cache's URL or, if the URL has none, by one of `substituter_public_keys` or a well-known cache's own key. The address
    of a cache as `path_infos` means the same.
    An embedded store is made where there is none, unless `create` is False.
    Local stores read all of their content once in `scrub_days`, to look for damage; with 0 they don't.
    A process that does one thing after the other opens it `as_worker` (of a pool): then local stores use no threads.

    Raises:
        InvalidError: an address is malformed, or of an unknown scheme.
        NoStoreError: an embedded store is not there, and `create` is False.
        UnsupportedError: a service is nowhere to be found; the error says which, and what has it not.
        DeniedError, UnavailableError, ExhaustedError, CorruptError: a store cannot be opened.
    """
    if store_dir is not None:
        check_store_dir(store_dir)
    everywhere = address or DEFAULT_ADDRESS
    blobs, directories = blobs or everywhere, directories or everywhere
    async with AsyncExitStack() as opened:
        offers = _Offers(opened, Opening(as_worker=as_worker, create=create, scrub_days=scrub_days))
        # Path infos first: content is the same below every store directory, and they are not.
        kept_at, path_info_offer, caches = await offers.find("path_infos", path_infos or everywhere, store_dir)
        if caches and path_info_offer.path_infos is None:
            # A cache elsewhere, without a place: what comes from there is kept beside its content.
            kept_at, path_info_offer, more = await offers.find("path_infos", directories, store_dir)
            caches += more
        _, blob_offer, _ = await offers.find("blobs", blobs)
        _, directory_offer, _ = await offers.find("directories", directories)
        store = composed(blob_offer, directory_offer, path_info_offer)
        if store_dir is not None:
            store = replace(store, store_dir=store_dir)
        caches = list(dict.fromkeys((*caches, *substituters)))
        if caches:
            if store.read_only:
                raise DeniedError(f"{store.name} can only be read: what comes from {without_secrets(caches[0])} has no place there")
            from tvix_store.config.substituters import fetch_lock, with_substituters

            store = await with_substituters(store, caches, substituter_public_keys, fetch_lock(kept_at))
        opened.pop_all()  # what is open stays open, unless a later one has failed
    return store


class _Offers:
    """The offers at some addresses, each of which is opened once, until `opened` ends."""

    def __init__(self, opened: AsyncExitStack, opening: Opening) -> None:
        self._opened = opened
        self._opening = opening
        self._offers: dict[str, Offer] = {}

    async def find(self, service: Service, address: str, store_dir: str | None = None) -> tuple[str, Offer, list[str]]:
        """The offer that has a service, and its address; the last one on the way, where none has it.

        Then the substituters of all offers on the way.
        """
        substituters: list[str] = []
        while True:
            offer = await self._open(address, store_dir)
            substituters += offer.substituters
            if getattr(offer, service) is not None or service not in offer.elsewhere:
                return address, offer, substituters
            address = offer.elsewhere[service]

    async def _open(self, address: str, store_dir: str | None) -> Offer:
        offer = self._offers.get(address)
        if offer is None:
            offer = self._offers[address] = await open_address(address, replace(self._opening, store_dir=store_dir))
            self._opened.push_async_callback(offer.close)
        return offer


def missing_stores(addresses: Iterable[str | None]) -> tuple[str, ...]:
    """The embedded stores, or named caches of these, among some addresses (None: the default one) that are not there.

    Each is told as `store in /path`.

    Raises:
        NoStoreError: something else is there.
        InvalidError: an address is malformed.
    """
    parsed = [Address.parse(address or DEFAULT_ADDRESS) for address in dict.fromkeys(addresses)]
    if all(each.scheme != "local" for each in parsed):
        return ()
    from tvix_store.config import local  # which takes long, and clients of servers do without

    missing = [local.missing_store(each) for each in parsed if each.scheme == "local"]
    return tuple(dict.fromkeys(each for each in missing if each is not None))


def cache_address(addresses: Iterable[str | None], name: str, quota: int | None = None, retention: str | None = None) -> str:
    """The address of a named cache of the store at some addresses (None: the default one).

    Raises:
        UnsupportedError: the store is not one directory: others have no named caches.
        InvalidError: an address is malformed.
    """
    everywhere = {address or DEFAULT_ADDRESS for address in addresses}
    parsed = [Address.parse(address) for address in everywhere]
    if len(parsed) > 1 or parsed[0].scheme != "local":
        shown = " and ".join(map(without_secrets, everywhere))
        raise UnsupportedError(f"only a store in one directory has named caches, not {shown}")
    (address,) = parsed
    bound = ("" if quota is None else f"&quota={quota}") + ("" if retention is None else f"&retention={retention}")
    if address.text == address.path:  # a path alone
        return f"local://{quote(str(Path(address.path).absolute()))}?cache={name}{bound}"
    return f"{address.text}{'&' if address.parameters else '?'}cache={name}{bound}"


def local_directories(addresses: Iterable[str | None]) -> tuple[Path, ...]:
    """The directories of the local stores among these addresses (None: the default one)."""
    from tvix_store.config.local_directory import directory_of

    parsed = [Address.parse(address or DEFAULT_ADDRESS) for address in addresses]
    return tuple(dict.fromkeys(directory_of(each) for each in parsed if each.scheme == "local"))


def private_places(addresses: Iterable[str | None]) -> tuple[str, ...]:
    """The directories in which a daemon before these addresses keeps files. Its clients are not told of them."""
    import tempfile  # 4 ms of a start, and few need it

    from tvix_store.config.user_directories import cache_directory

    own = [Path(os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()) / f"tvix-store-{os.geteuid()}", cache_directory()]
    local = local_directories(addresses)
    places = {str(place) for each in (*own, *local) if each is not None for place in (each, each.absolute()) if place.is_absolute()}
    # The longest first: one may lie in another.
    return tuple(sorted(places - {"/"}, key=len, reverse=True))


def prepare_for_pool(addresses: Iterable[str | None]) -> bool:
    """Whether more processes would help with stores at these addresses (None: the default one); then what opens them is imported.

    They would where who opens a store does its work, as with a directory on this machine.
    """
    return all(scheme_of(Address.parse(address or DEFAULT_ADDRESS)).works_here for address in addresses)


def verified(
    store: S,
    keys: Sequence[PublicKey] = (),
    *,
    require_signatures: bool = False,
    require_references: bool = False,
    trust_nar: bool = True,
) -> S:
    """The store, taking only path infos that are true of its content, and whose content addresses and signatures by `keys` hold.

    With `require_signatures`, a path that does not follow from its content needs one of these signatures. With
    `require_references`, the paths that it refers to must be in the store. Without `trust_nar`, the size and hash of a NAR are not
    taken from a server's word: they are computed here, from content that is checked against its digests.
    """
    wanted_store(store)
    from tvix_store.layers.closed import ClosedPathInfos
    from tvix_store.layers.signature_policy import SignaturePolicy
    from tvix_store.layers.verifying import VerifyingPathInfos

    if not trust_nar and store.known_nars is None:
        from tvix_store.layers.memory_nars import MemoryNars
        from tvix_store.layers.remembering_nar import RememberingNarService

        known_nars = MemoryNars()
        store = store.with_services(nar=RememberingNarService(store.blobs, store.directories, known_nars))
        store = replace(store, known_nars=known_nars)
    path_infos: PathInfoService = SignaturePolicy(store, keys, required=require_signatures)
    path_infos = VerifyingPathInfos(path_infos, store.nar)
    if require_references:
        # References first: to look them up costs little, to calculate a NAR much.
        path_infos = ClosedPathInfos(store, path_infos)
    # They check puts, and change no stored content.
    return store.with_services(path_infos=path_infos, keep=["statistics", "named_paths", "arrivals", "removal", "collection"])
