"""Upstreams: the layer of binary caches, over a store that keeps what comes from there."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from tvix_store.config.composition.node import Node, StoreLayer
from tvix_store.config.composition.parameter import reference
from tvix_store.errors import DeniedError
from tvix_store.model.address import without_secrets
from tvix_store.model.signature import PublicKey
from tvix_store.services.store import Store


@dataclass(frozen=True, slots=True)
class Upstreams(StoreLayer):
    """Binary caches from which missing paths are fetched: `urls`. Those that name no key are believed with one of the `keys`."""

    urls: tuple[str, ...]
    keys: tuple[PublicKey, ...]
    blob_service: Node = field(metadata=reference("blobs"))
    directory_service: Node = field(metadata=reference("directories"))
    inner: Node | None = field(default=None, metadata=reference("path_infos"))

    def keeping_in(self, inner: Node) -> Upstreams:
        """The same, with the path infos in `inner`. Upstreams of that, over the same content, become some of these."""
        below = inner.terms
        if not isinstance(below, Upstreams) or below.content != self.content:
            return replace(self, inner=inner)
        urls, keys = ((*getattr(below, name), *getattr(self, name)) for name in ("urls", "keys"))
        return replace(below, urls=tuple(dict.fromkeys(urls)), keys=tuple(dict.fromkeys(keys)))

    @property
    def content(self) -> tuple[Node, Node]:
        return self.blob_service, self.directory_service

    async def over(self, store: Store, kept_at: str) -> Store:
        if store.read_only:
            raise DeniedError(f"{store.name} can only be read: what comes from {without_secrets(self.urls[0])} has no place there")
        from tvix_store.config.substituters import fetch_lease, with_substituters

        return await with_substituters(store, self.urls, self.keys, fetch_lease(kept_at, store.records))
