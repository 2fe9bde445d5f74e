"""Uploads: chunks on their way to the bucket, some at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeAlias

from tvix_store.backends.objectstore.snix.chunks import Chunks
from tvix_store.model.digest import Digest

_AT_ONCE = 16
"""Chunks of all blobs, which lie in memory meanwhile: 4 MiB, at most 8."""
Upload: TypeAlias = Callable[[Digest, bytes | memoryview], Awaitable[None]]


class Uploads:
    """Puts chunks that the bucket lacks."""

    def __init__(self, chunks: Chunks) -> None:
        self._chunks = chunks
        self._room = asyncio.Semaphore(_AT_ONCE)

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[Upload]:
        """A function that uploads a chunk: it returns when there is room for the next one. At the end, all are there.

        Where one fails, or the caller does, the others are given up.
        """
        running: set[asyncio.Task[None]] = set()

        async def upload(digest: Digest, content: bytes | memoryview) -> None:
            for task in [each for each in running if each.done()]:
                task.result()
                running.discard(task)
            await self._room.acquire()
            task = asyncio.create_task(self._put(digest, content))
            task.add_done_callback(lambda _: self._room.release())
            running.add(task)

        try:
            yield upload
            await asyncio.gather(*running)
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    async def _put(self, digest: Digest, content: bytes | memoryview) -> None:
        if not await self._chunks.is_there(digest):
            await self._chunks.put(digest, content)
