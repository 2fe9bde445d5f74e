"""FetchLease: one fetch of a path at a time, across machines whose store keeps records in one place."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from tvix_store.errors import StoreError
from tvix_store.services.records import RecordService

LEASE = b"lease:"
"""How the keys of the records begin. The output hash follows."""
_VALID = 30.0
"""Seconds after which a lease that nobody has renewed is free. Its holder renews it three times in that time."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 1.0
"""Seconds between two tries."""
_log = logging.getLogger(__name__)


class FetchLease:
    """Leases by output hash, in records. A holder that is gone renews its lease no more, and after a while another takes it over.

    No clocks are compared: whoever waits takes the time for which the record stays the same. A holder that was only slow may find
    another one at work. Then both fetch the same content, which does no harm.
    """

    def __init__(self, records: RecordService, valid: float = _VALID) -> None:
        self._records = records
        self._valid = valid

    @asynccontextmanager
    async def holding(self, output_hash: bytes) -> AsyncIterator[None]:
        """Hold the lease of a path, once nobody else does.

        Raises:
            StoreError: as the records.
        """
        held = _Held(self._records, LEASE + output_hash)
        await self._take(held)
        over = asyncio.Event()
        renewing = asyncio.create_task(self._renew(held, over))
        try:
            yield
        finally:
            over.set()  # not by a cancellation: what is being written then would not be known
            await renewing
            with suppress(StoreError):  # it becomes free by itself
                await held.change(None)

    async def _take(self, held: _Held) -> None:
        while not await held.change(os.urandom(16)):
            held.value = await self._free(held.key)

    async def _free(self, key: bytes) -> bytes | None:
        """Wait until nobody holds a lease: what is in its record then, None for nothing."""
        pause, seen, since = _FIRST_PAUSE, b"", 0.0
        while (found := await self._records.get(key)) is not None:
            if found != seen:
                seen, since = found, time.monotonic()
            elif time.monotonic() - since >= self._valid:
                break
            await asyncio.sleep(pause * random.uniform(0.5, 1))  # noqa: S311 - it spreads tries
            pause = min(pause * 2, _LONGEST_PAUSE)
        return found

    async def _renew(self, held: _Held, over: asyncio.Event) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._valid / 3):
                    await over.wait()
            if over.is_set():
                return
            try:
                if not await held.change(os.urandom(16)):
                    return  # another has taken it over
            except StoreError as error:
                _log.warning("the lease of a fetch could not be renewed: %s", error)


class _Held:
    """What a holder knows of the record of a lease: the value that it has put, or is about to take over."""

    def __init__(self, records: RecordService, key: bytes) -> None:
        self.key = key
        self.value: bytes | None = None
        self._records = records

    async def change(self, value: bytes | None) -> bool:
        """Give the record another value, if it has the known one."""
        changed = await self._records.exchange({self.key: (self.value, value)}) == 1
        if changed:
            self.value = value
        return changed
