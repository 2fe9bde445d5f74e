"""Fills: a near store whose values are put beside the work, and found at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from tvix_store.layers.cache.entries import smaller
from tvix_store.layers.cache.near import Near, Value
from tvix_store.telemetry import meters

T = TypeVar("T")

_WAITING = 32 << 20
"""Bytes that wait to be put. What comes when there are more is not kept: the far store is faster than the near one."""
_BATCH = 4 << 20
"""Bytes that are put at a time."""
INLINE = 64 << 10
"""Bytes of a value that is read on the event loop: decompressing it and checking it takes as long as a hop to a thread."""
_THREADS = 2
"""Threads that read from the near store: more of them would wait for each other's turn with the interpreter."""
_KINDS = {b"c": "near chunk", b"l": "near list", b"d": "near directory"}


class Fills:
    """A near store for the tasks of an event loop."""

    def __init__(self, near: Near) -> None:
        self._near = near
        self._threads = asyncio.Semaphore(_THREADS)
        self._waiting: dict[bytes, bytes] = {}
        self._size = 0
        self._task: asyncio.Task[None] | None = None

    async def get(self, kind: bytes, digests: Sequence[bytes], read: Callable[[bytes, Value], T | None]) -> list[T | None]:
        """What `read` makes of each digest and its value, in a thread, in order; None where it has none, or `read` refuses it."""
        if not digests:
            return []
        at_once = self._get_at_once(kind, digests[0], read) if len(digests) == 1 else None
        results = await self._in_thread(kind, digests, read) if at_once is None else at_once
        hits = sum(result is not None for result in results)
        meters.CACHE_LOOKUPS.of(_KINDS[kind], "hit").add(hits)
        meters.CACHE_LOOKUPS.of(_KINDS[kind], "miss").add(len(results) - hits)
        return results

    def _get_at_once(self, kind: bytes, digest: bytes, read: Callable[[bytes, Value], T | None]) -> list[T | None] | None:
        """As `get`, of one value that is small and in memory, or known not to be there; None for another."""
        key = kind + digest
        try:
            value = self._waiting[key] if key in self._waiting else self._near.peek(key)
        except BlockingIOError:
            return None
        if value is None:
            return [None]
        return [read(digest, value)] if len(value) <= INLINE else None

    async def _in_thread(self, kind: bytes, digests: Sequence[bytes], read: Callable[[bytes, Value], T | None]) -> list[T | None]:
        keys = [kind + digest for digest in digests]
        async with self._threads:
            return await asyncio.to_thread(self._get, digests, keys, [self._waiting.get(key) for key in keys], read)

    def _get(
        self,
        digests: Sequence[bytes],
        keys: Sequence[bytes],
        waiting: Sequence[bytes | None],
        read: Callable[[bytes, Value], T | None],
    ) -> list[T | None]:
        lacking = [key for key, value in zip(keys, waiting, strict=True) if value is None]
        near = iter(self._near.get(lacking)) if lacking else iter(())
        values = (next(near) if value is None else value for value in waiting)
        return [None if value is None else read(digest, value) for digest, value in zip(digests, values, strict=True)]

    def put(self, values: Mapping[bytes, bytes]) -> None:
        """Keep values, soon."""
        for key, value in values.items():
            if self._size + len(value) > _WAITING:
                break
            self._size += len(value) - len(self._waiting.get(key, b""))
            self._waiting[key] = value
        if self._waiting and self._task is None:
            self._task = asyncio.create_task(self._put_waiting())

    async def flush(self) -> None:
        """Wait until all values are kept that wait now."""
        while self._task is not None:
            await asyncio.wait([self._task])

    async def close(self) -> None:
        """Keep what waits, and close the near store."""
        await self.flush()
        await asyncio.to_thread(self._near.close)

    async def _put_waiting(self) -> None:
        try:
            while self._waiting:
                batch: dict[bytes, bytes] = {}
                size = 0
                for key, value in self._waiting.items():
                    if batch and size + len(value) > _BATCH:
                        break
                    batch[key] = value
                    size += len(value)
                await asyncio.to_thread(self._put, batch)
                for key, value in batch.items():
                    if self._waiting.get(key) is value:
                        del self._waiting[key]
                        self._size -= len(value)
        finally:
            self._task = None

    def _put(self, batch: dict[bytes, bytes]) -> None:
        self._near.put(smaller(batch))
