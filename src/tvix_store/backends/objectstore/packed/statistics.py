"""PackedStatistics: how much content a packed bucket holds."""

from __future__ import annotations

import asyncio

from tvix_store.backends.objectstore.packed.engine import Engine
from tvix_store.services.statistics import Stats


class PackedStatistics:
    """The Statistics of a packed bucket, without path infos. Disk bytes are those of packs that a commit names."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def stats(self) -> Stats:
        await self._engine.refresher.refresh(self._engine.settings.fresh)
        counts = await asyncio.to_thread(lambda: self._engine.view.counts)
        return Stats(
            path_infos=0,
            directories=counts.directories,
            chunked_blobs=counts.lists,
            chunks=counts.chunks,
            logical_bytes=0,
            unique_bytes=counts.unique,
            stored_bytes=counts.stored,
            disk_bytes=counts.disk,
        )
