"""What a local store holds, counted."""

from __future__ import annotations

import stat
from pathlib import Path

from tvix_store.backends.local.engine import Engine
from tvix_store.backends.local.ledger import REMOVED, STORED_BYTES, UNIQUE_BYTES
from tvix_store.backends.local.path_infos import LocalPathInfos
from tvix_store.services.statistics import Stats


class LocalStatistics:
    """The Statistics of a local store."""

    def __init__(self, engine: Engine, path_infos: LocalPathInfos) -> None:
        self._engine = engine
        self._path_infos = path_infos

    async def stats(self) -> Stats:
        logical = 0
        async for path_info in self._path_infos.list():
            logical += path_info.nar.size
        return await self._engine.in_thread(self._counted, logical)

    def _counted(self, logical_bytes: int) -> Stats:
        index = self._engine.index
        with index.reading() as txn:
            return Stats(
                path_infos=index.rows(txn, index.path_infos) - index.counter(txn, REMOVED),
                directories=index.rows(txn, index.directories),
                chunked_blobs=index.chunked_blobs(txn),
                chunks=index.rows(txn, index.chunks),
                logical_bytes=logical_bytes,
                unique_bytes=index.counter(txn, UNIQUE_BYTES),
                stored_bytes=index.counter(txn, STORED_BYTES),
                disk_bytes=sum(map(_disk_bytes, self._engine.directory.rglob("*"))),
            )


def _disk_bytes(path: Path) -> int:
    try:
        status = path.lstat()
    except FileNotFoundError:  # the store is in use: files come and go
        return 0
    return status.st_blocks * 512 if stat.S_ISREG(status.st_mode) else 0
