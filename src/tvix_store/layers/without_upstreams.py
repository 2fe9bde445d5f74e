"""without_upstreams: a store as it is by itself, for clients that fill it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tvix_store.concurrency.each_at_once import each_at_once
from tvix_store.layers.passing import PassingPathInfos
from tvix_store.model.path_info import PathInfo
from tvix_store.services.foreign_paths import ForeignPaths
from tvix_store.services.path_infos import PathInfoService
from tvix_store.services.store import Store


def without_upstreams(store: Store) -> Store:
    """The store, where nothing is fetched, and only its own paths are found.

    Puts are checked as before: a path may refer to paths that an upstream has. It is not to be closed; `store` is.
    """
    if store.foreign_paths is None:
        return store
    alone = store.with_services(
        path_infos=_OwnPathInfos(store.path_infos, store.foreign_paths), keep=["statistics", "named_paths", "arrivals"]
    )
    return replace(alone, foreign_paths=None, foreign_documents=None)


class _OwnPathInfos(PassingPathInfos):
    """A PathInfoService that gets what the store itself has. `existing` still tells what puts may refer to."""

    def __init__(self, inner: PathInfoService, foreign: ForeignPaths) -> None:
        super().__init__(inner)
        self._foreign = foreign

    async def get(self, output_hash: bytes) -> PathInfo | None:
        return await self._foreign.kept(output_hash)

    async def get_many(self, output_hashes: Sequence[bytes]) -> dict[bytes, PathInfo]:
        found = await each_at_once(self._foreign.kept, list(dict.fromkeys(output_hashes)))
        return {each.store_path.output_hash: each for each in found if each is not None}
