"""SyncingPathInfos: acknowledges a path info only once its content, which stands in other stores, is on their disks."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection

from tvix_store.layers.passing import PassingPathInfos
from tvix_store.model.path_info import PathInfo
from tvix_store.model.store_path import StorePath
from tvix_store.model.trust import NOBODY, Trust
from tvix_store.services.path_infos import PathInfoService


class SyncingPathInfos(PassingPathInfos):
    """A PathInfoService that calls `sync` before it hands a path info on.

    `sync` brings to the disk itself all content that was acknowledged; what it raises, `put` raises, and stores nothing.
    """

    def __init__(self, inner: PathInfoService, sync: Callable[[], Awaitable[None]]) -> None:
        super().__init__(inner)
        self._sync = sync

    async def put(
        self, path_info: PathInfo, trust: Trust = NOBODY, *, requires: Collection[StorePath] = (), calculated: bool = False
    ) -> PathInfo:
        await self._sync()
        return await self._inner.put(path_info, trust, requires=requires, calculated=calculated)
