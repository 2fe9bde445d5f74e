"""Hours: the time of a named cache. It passes only while somebody looks after the cache.

So neither a pause of the daemon nor a clock that is wrong lets paths seem unused for long. The record `hours:` has three numbers
(u32, little-endian):

    so_far        the hours so far
    by_clock      the hour by the machine's clock when that was written
    at_last_run   the hours so far when the retention had its last run
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import NamedTuple

from tvix_store.services.records import RecordService
from tvix_store.services.removal import HOUR

_KEY = b"hours:"
_RECORD = struct.Struct("<III")
_MOST = 2
"""Hours that may pass from one look to the next, which are an hour apart."""
_LAST = (1 << 32) - 1


class _State(NamedTuple):
    so_far: int
    by_clock: int
    at_last_run: int


_FIRST = _State(24, 0, 0)
"""A run is due at once, and nobody has looked at the clock."""


class Hours:
    """The hours of a cache, in its records. `clock` tells the seconds since 1970."""

    def __init__(self, records: RecordService, clock: Callable[[], float]) -> None:
        self._records = records
        self._clock = clock

    async def now(self) -> int:
        """The hours so far."""
        return (await self._state()).so_far

    async def since_last_run(self) -> int:
        """The hours since the last run."""
        state = await self._state()
        return state.so_far - state.at_last_run

    async def look(self) -> None:
        """Let those hours pass that have passed by the clock since the last look. One process at a time looks.

        Raises:
            ExhaustedError: the disk is full.
        """
        state = await self._state()
        by_clock = min(max(int(self._clock() / HOUR), 0), _LAST)
        if by_clock != state.by_clock:
            passed = min(max(by_clock - state.by_clock, 0), _MOST) if state.by_clock else 0
            await self._write(state._replace(so_far=state.so_far + passed, by_clock=by_clock))

    async def have_run(self) -> None:
        """Note that a run has ended. Raises as `look`."""
        state = await self._state()
        await self._write(state._replace(at_last_run=state.so_far))

    async def _state(self) -> _State:
        value = await self._records.get(_KEY)
        return _FIRST if value is None or len(value) != _RECORD.size else _State(*_RECORD.unpack(value))

    async def _write(self, state: _State) -> None:
        await self._records.put({_KEY: _RECORD.pack(*state)}, durable=False)
