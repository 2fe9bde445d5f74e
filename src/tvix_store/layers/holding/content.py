"""HeldContent: lets a named cache hold content that was sent to it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from tvix_store.layers.holding.held import Held, Kind
from tvix_store.layers.holding.quota import Quota
from tvix_store.model.digest import Digest
from tvix_store.services.blobs import BlobService


class HeldContent:
    """Lets a cache hold content that was sent to it, and is stored in `blobs`."""

    def __init__(self, blobs: BlobService, held: Held, quota: Quota) -> None:
        self._blobs = blobs
        self.held = held
        self.quota = quota
        self._taking = asyncio.Lock()
        """Content that two clients send at the same time counts once."""

    async def take_blobs(self, digests: Sequence[Digest], *, counts: bool = True) -> None:
        """Hold blobs, with their chunks: each can be read alone.

        So a cache that holds a blob holds its chunks too. A blob that was put together from held chunks adds nothing, and does not
        count.
        """
        async with self._taking:
            new = list(await self.held.lacking(Kind.BLOB, digests, to_send=True))
            absent = await self.held.lacking(Kind.BLOB, new)
            size, chunks = 0, []
            for digest in new:
                stat = await self._blobs.stat(digest, chunks=True)
                if stat is not None:
                    size += (stat.size or 0) if digest in absent else 0
                    chunks += [chunk.digest for chunk in stat.chunks]
            new = [*await self.held.lacking(Kind.BLOB, chunks, to_send=True), *new]
            await self._take(Kind.BLOB, new, size if counts else 0)

    async def take_directories(self, sizes: Mapping[Digest, int]) -> None:
        """Hold directories, by their digests, of these sizes in bytes.

        All of them stand above ones that the cache holds, or that are among them.
        """
        async with self._taking:
            new = list(await self.held.lacking(Kind.DIRECTORY, list(sizes), to_send=True))
            absent = await self.held.lacking(Kind.DIRECTORY, new)
            await self._take(Kind.DIRECTORY, new, sum(sizes[digest] for digest in absent))

    async def _take(self, kind: Kind, digests: Sequence[Digest], size: int) -> None:
        counted = self.quota.count(size)
        try:
            await self.held.put(kind, digests, counted)
        except BaseException:
            self.quota.take_back(size)
            raise
