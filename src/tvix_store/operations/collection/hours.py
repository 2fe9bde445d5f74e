"""Hours: the time of a store or a named cache. It passes only while somebody looks after it.

So neither a pause of the daemon nor a clock that is wrong lets paths seem unused for long. The record `hours:` has three numbers
(u32, little-endian):

    so_far        the hours so far
    by_clock      the hour by the machine's clock when that was written
    at_last_run   the hours so far when the retention had its last run
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable
from typing import NamedTuple

from tvix_store.services.records import RecordService
from tvix_store.services.removal import HOUR

_KEY = b"hours:"
_RECORD = struct.Struct("<III")
HOURLY, DAILY = 2, 48
"""The most hours that one look lets pass, where somebody looks once an hour, or once a day."""
_LAST = (1 << 32) - 1


class _State(NamedTuple):
    so_far: int
    by_clock: int
    at_last_run: int


_FIRST = _State(24, 0, 0)
"""A run is due at once, and nobody has looked at the clock."""


class Hours:
    """The hours of a store, in its records.

    clock: Tells the seconds since 1970.
    most: So many hours may pass from one look to the next.
    """

    def __init__(self, records: RecordService, clock: Callable[[], float] = time.time, most: int = HOURLY) -> None:
        self._records = records
        self._clock = clock
        self._most = most

    async def have_begun(self) -> bool:
        """Whether anybody has ever looked: the store is one from which unused paths are removed."""
        return await self._records.get(_KEY) is not None

    async def now(self) -> int:
        """The hour that it is: as the next look would have it, were it now."""
        state = await self._state()
        return state.so_far + self._passed(state, self._by_clock())

    async def since_last_run(self) -> int:
        """The hours from the last run to the last look."""
        state = await self._state()
        return state.so_far - state.at_last_run

    async def look(self) -> None:
        """Let those hours pass that have passed by the clock since the last look. One process at a time looks.

        Raises:
            ExhaustedError: the disk is full.
        """
        state = await self._state()
        by_clock = self._by_clock()
        if by_clock != state.by_clock or not await self.have_begun():
            await self._write(state._replace(so_far=state.so_far + self._passed(state, by_clock), by_clock=by_clock))

    async def have_run(self) -> None:
        """Note that a run has ended. Raises as `look`."""
        state = await self._state()
        await self._write(state._replace(at_last_run=state.so_far))

    def _by_clock(self) -> int:
        return min(max(int(self._clock() / HOUR), 0), _LAST)

    def _passed(self, state: _State, by_clock: int) -> int:
        return min(max(by_clock - state.by_clock, 0), self._most) if state.by_clock else 0

    async def _state(self) -> _State:
        value = await self._records.get(_KEY)
        return _FIRST if value is None or len(value) != _RECORD.size else _State(*_RECORD.unpack(value))

    async def _write(self, state: _State) -> None:
        await self._records.put({_KEY: _RECORD.pack(*state)}, durable=False)
