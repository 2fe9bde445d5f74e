"""A Store from addresses, or from a composition."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Hashable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any, TypeVar

from tvix_store.config.composition.composition import Composition, kept_at, of_addresses
from tvix_store.config.composition.node import Layer, Leaf, Node, StoreLayer
from tvix_store.config.composition.upstreams import Upstreams
from tvix_store.config.scheme import Opening
from tvix_store.config.schemes import open_address
from tvix_store.errors import InvalidError, StoreError
from tvix_store.layers.composing import composed
from tvix_store.model.file_path import StrPath
from tvix_store.model.signature import PublicKey
from tvix_store.model.store_path import check_store_dir
from tvix_store.services.offer import Offer, nothing
from tvix_store.services.store import Store

T = TypeVar("T")
_RECENT = "lru://?capacity=1000"
"""Where path infos of upstreams are kept that have no other place."""


async def open_store(
    address: str | None = None,
    *,
    blobs: str | None = None,
    directories: str | None = None,
    path_infos: str | None = None,
    composition: Composition | StrPath | Mapping[str, Any] | None = None,
    store_dir: str | None = None,
    substituters: Sequence[str] = (),
    substituter_public_keys: Sequence[PublicKey] = (),
    create: bool = True,
    scrub_days: float = 0,
    as_worker: bool = False,
) -> Store:
    """Open the store at `address`, a URL or a path; by default the embedded store in the user's data directory.

    `blobs`, `directories` and `path_infos` are addresses of single services that stand elsewhere. `composition` takes the place of
    all addresses: it is a file, or a mapping with the same tables. `store_dir` is the directory of
    Nix's store: by default the one that the store was made for, and `/nix/store` for a new one. It is a part of what a store path
    stands for, so a local store takes no other one than it was made for.
    `substituters` are the URLs of binary caches from which missing paths are fetched. A path must be signed by a key in the
    cache's URL or, if the URL has none, by one of `substituter_public_keys` or a well-known cache's own key. The address
    of a cache as `path_infos` means the same.
    An embedded store is made where there is none, unless `create` is False.
    Local stores read all of their content once in `scrub_days`, to look for damage; with 0 they don't.
    A process that does one thing after the other opens it `as_worker` (of a pool): then local stores use no threads.

    Raises:
        InvalidError: an address is malformed, or of an unknown scheme; a composition is wrong.
        NoStoreError: an embedded store is not there, and `create` is False.
        UnsupportedError: a service is nowhere to be found; the error says which, and what has it not.
        DeniedError, UnavailableError, ExhaustedError, CorruptError: a store cannot be opened.
    """
    if store_dir is not None:
        check_store_dir(store_dir)
    if composition is None:
        composition = of_addresses(address, blobs=blobs, directories=directories, path_infos=path_infos)
    elif any((address, blobs, directories, path_infos)):
        raise InvalidError("a composition takes the place of addresses: give one of the two")
    elif not isinstance(composition, Composition):
        from tvix_store.config.composition.reading import read_composition

        composition = read_composition(composition)
    composition = composition.with_upstreams(substituters, substituter_public_keys)
    for node in composition.uses():
        for key, text in node.terms.found():  # before a store is made
            raise InvalidError(f"{node.name} {key}: {text}")
    opening = Opening(as_worker=as_worker, create=create, scrub_days=scrub_days)
    async with AsyncExitStack() as opened:
        parts = OpenParts(composition, opening, store_dir, opened)
        roots = composition.roots
        store = await parts.store(roots["blobs"], roots["directories"], roots["path_infos"])
        # What is open stays open, unless a later part has failed.
        return replace(store, close=opened.pop_all().aclose)


async def open_each(composition: Composition, store_dir: str | None = None) -> AsyncGenerator[tuple[Node, StoreError | None], None]:
    """Open each node that is used, and ask whether it serves: each node, with the error where it does not. Nothing is made."""
    async with AsyncExitStack() as opened:
        parts = OpenParts(composition, Opening(create=False), store_dir, opened)
        for node in composition.uses():
            try:
                await (await parts.offer(node)).check()
            except StoreError as error:
                yield node, error
            else:
                yield node, None


class OpenParts:
    """What is open of a composition: each node once, until `opened` ends, the last one first."""

    def __init__(self, composition: Composition, opening: Opening, store_dir: str | None, opened: AsyncExitStack) -> None:
        self.opening = opening
        self._store_dir = store_dir
        self._opened = opened
        # Content is the same below every store directory, and path infos are not.
        self._of_store_dir = {node for node, services in composition.uses().items() if "path_infos" in services}
        self._offers: dict[Node, Offer] = {}
        self._shared: dict[Hashable, Any] = {}

    async def offer(self, node: Node) -> Offer:
        """The offer of a node. Whoever asks does not close it: its `close` does nothing."""
        if node not in self._offers:
            self._offers[node] = await self._held(node, await self._open(node))
        return self._offers[node]

    def shared(self, key: Hashable, make: Callable[[], T]) -> T:
        """What `make` returns, once for each key."""
        if key not in self._shared:
            self._shared[key] = make()
        found: T = self._shared[key]
        return found

    async def store(self, blobs: Node, directories: Node, path_infos: Node) -> Store:
        """The store of three nodes. That of a layer over the same content is a whole store already."""
        kept = await self.offer(path_infos)
        terms = path_infos.terms
        if isinstance(terms, StoreLayer) and (terms.blob_service, terms.directory_service) == (blobs, directories):
            assert isinstance(kept, Store), "layers over stores are stores"
            return kept
        return self._composed(await self.offer(blobs), await self.offer(directories), kept)

    async def _open(self, node: Node) -> Offer:
        terms = node.terms
        if isinstance(terms, Leaf):
            store_dir = self._store_dir if node in self._of_store_dir else None
            return await open_address(terms.address(), replace(self.opening, store_dir=store_dir))
        if isinstance(terms, StoreLayer):
            blobs, directories = terms.blob_service, terms.directory_service
            if terms.inner is not None:
                return await terms.over(await self.store(blobs, directories, terms.inner), kept_at(node))
            assert isinstance(terms, Upstreams), "others have a place for path infos"
            # A cache elsewhere, without a place: what comes from there is kept beside its content.
            kept = await self.offer(directories)
            if kept.path_infos is None:
                kept = await open_address(_RECENT, replace(self.opening, store_dir=self._store_dir))
            return await terms.over(self._composed(await self.offer(blobs), await self.offer(directories), kept), kept_at(node))
        assert isinstance(terms, Layer), "there are no others"
        return await terms.open(self)

    def _composed(self, blobs: Offer, directories: Offer, path_infos: Offer) -> Store:
        store = composed(blobs, directories, path_infos)
        return store if self._store_dir is None else replace(store, store_dir=self._store_dir)

    async def _held(self, node: Node, offer: Offer) -> Offer:
        self._opened.push_async_callback(offer.close)
        return replace(offer, name=offer.name or node.name, close=nothing)
