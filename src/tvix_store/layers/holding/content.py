"""HeldContent: what a named cache takes into what it holds."""

from __future__ import annotations

from collections.abc import Sequence

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

    async def take_blobs(self, digests: Sequence[Digest]) -> None:
        """Hold blobs, with their chunks: each can be read alone.

        The chunks come first. So a cache that holds a blob holds its chunks too.
        """
        new = list(await self.held.lacking(Kind.BLOB, list(dict.fromkeys(digests))))
        size = 0
        for digest in new:
            stat = await self._blobs.stat(digest, chunks=True)
            if stat is not None:
                size += stat.size or 0
                await self.held.add(Kind.BLOB, [chunk.digest for chunk in stat.chunks])
        await self.quota.add(size)
        await self.held.add(Kind.BLOB, new)

    async def take_directories(self, digests: Sequence[Digest]) -> None:
        """Hold directories, all of which stand above ones that the cache holds, or that are among them."""
        await self.held.add(Kind.DIRECTORY, digests)
