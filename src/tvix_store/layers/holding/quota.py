"""Quota: how many bytes of content a named cache may hold.

Every process that writes has a counter in the cache's records, `usage:` and 8 random bytes, so none overwrites another's. Their sum
is what the cache holds: each file and directory once, with its whole size, whether other caches hold it or not. A counter of a
process that has ended stays.
"""

from __future__ import annotations

import asyncio
import os
import struct
from types import TracebackType
from typing import Self

from tvix_store.errors import ExhaustedError
from tvix_store.services.records import RecordService

_PREFIX = b"usage:"
_SIZE = struct.Struct("<q")
"""A counter may be negative: what one process has counted, another one may let go of."""
_FRESH = 2.0
"""Seconds for which the counters of other processes are taken to stay as they are."""


class Quota:
    """Counts the bytes of a cache, and refuses more than `most`; None for no bound."""

    def __init__(self, records: RecordService, most: int | None) -> None:
        self._records = records
        self.most = most
        self.reserved = 0
        """Bytes of puts that are under way in this process."""
        self._key = _PREFIX + os.urandom(8)
        self._own = 0
        self._others = 0
        self._fresh_until = 0.0

    async def used(self) -> int:
        """Bytes that the cache holds; of other processes as of some seconds ago."""
        if asyncio.get_running_loop().time() >= self._fresh_until:
            await self._look()
        return self._own + self._others

    async def _look(self) -> None:
        """Read the counters of other processes. Those that are damaged count nothing."""
        self._fresh_until = asyncio.get_running_loop().time() + _FRESH
        counters = [value async for key, value in self._records.list(_PREFIX) if key != self._key]
        self._others = sum(_SIZE.unpack(value)[0] for value in counters if len(value) == _SIZE.size)

    def count(self, size: int) -> dict[bytes, bytes]:
        """Count bytes that the cache holds from now on. The records that say so are put with those of the content."""
        if not size:
            return {}
        self._own += size
        return {self._key: _SIZE.pack(self._own)}

    async def correct(self, size: int) -> None:
        """Let the counters say that the cache holds `size` bytes: so many were found by looking.

        Raises:
            ExhaustedError: the disk is full.
        """
        await self._look()
        await self._records.put(self.count(size - self._own - self._others), durable=False)

    def take_back(self, size: int) -> None:
        """Undo `count`, whose records were not put."""
        self._own -= size


class Room:
    """Room for what is being put, until it is counted or was given up. Use as `with`."""

    def __init__(self, quota: Quota) -> None:
        self._quota = quota
        self._size = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.give_back()

    async def grow(self, size: int) -> None:
        """Take room for more bytes.

        Raises:
            ExhaustedError: there is none.
        """
        quota = self._quota
        self._size += size
        quota.reserved += size
        if quota.most is not None and await quota.used() + quota.reserved > quota.most:
            raise ExhaustedError(f"this cache may hold {quota.most} bytes, and has no room for {self._size} more")

    def give_back(self) -> None:
        """Keep no room any more."""
        self._quota.reserved -= self._size
        self._size = 0
