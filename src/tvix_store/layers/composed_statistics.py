"""ComposedStatistics: the count of a store whose services stand in several stores."""

from __future__ import annotations

import asyncio

from tvix_store.services.statistics import Statistics, Stats


class ComposedStatistics:
    """The Statistics of a composed store: each service is counted by the store that it comes from.

    `disk_bytes` are those of all these stores.
    """

    def __init__(self, blobs: Statistics, directories: Statistics, path_infos: Statistics) -> None:
        self._of = blobs, directories, path_infos

    async def stats(self) -> Stats:
        distinct = list(dict.fromkeys(self._of))
        counted = dict(zip(distinct, await asyncio.gather(*(each.stats() for each in distinct)), strict=True))
        blobs, directories, path_infos = (counted[each] for each in self._of)
        return Stats(
            path_infos=path_infos.path_infos,
            directories=directories.directories,
            chunked_blobs=blobs.chunked_blobs,
            chunks=blobs.chunks,
            logical_bytes=path_infos.logical_bytes,
            unique_bytes=blobs.unique_bytes,
            stored_bytes=blobs.stored_bytes,
            disk_bytes=sum(each.disk_bytes for each in counted.values()),
        )
