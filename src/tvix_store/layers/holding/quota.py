"""Quota: how many bytes of files a named cache may hold.

Every process that writes has a counter in the cache's records, `usage:` and 8 random bytes, so none overwrites another's. Their sum
is what the cache holds: each file once, with its whole size, whether other caches hold it or not.
"""

from __future__ import annotations

import asyncio
import os
import struct

from tvix_store.errors import ExhaustedError
from tvix_store.services.records import RecordService

_PREFIX = b"usage:"
_SIZE = struct.Struct("<Q")
_FRESH = 2.0
"""Seconds for which the counters of other processes are taken to stay as they are."""


class Quota:
    """Counts the bytes of a cache, and refuses more than `most`; None for no bound."""

    def __init__(self, records: RecordService, most: int | None) -> None:
        self._records = records
        self._most = most
        self._key = _PREFIX + os.urandom(8)
        self._own = 0
        self._others = 0
        self._fresh_until = 0.0

    async def used(self) -> int:
        """Bytes of all files that the cache holds; of other processes as of some seconds ago."""
        now = asyncio.get_running_loop().time()
        if now >= self._fresh_until:
            self._fresh_until = now + _FRESH
            counters = [value async for key, value in self._records.list(_PREFIX) if key != self._key]
            self._others = sum(_SIZE.unpack(value)[0] for value in counters)
        return self._own + self._others

    async def admit(self, size: int) -> None:
        """See that there is room for files of so many bytes together.

        Raises:
            ExhaustedError: there is not.
        """
        if self._most is not None and await self.used() + size > self._most:
            raise ExhaustedError(f"this cache may hold {self._most} bytes, and has no room for {size} more")

    async def add(self, size: int) -> None:
        """Count bytes of files that the cache holds from now on."""
        if size:
            self._own += size
            await self._records.put({self._key: _SIZE.pack(self._own)}, durable=False)
