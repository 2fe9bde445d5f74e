"""TimeSlices: streams of messages share the event loop with everybody else."""

from __future__ import annotations

import asyncio
from time import perf_counter

_SLICE = 0.002
"""Seconds for which streams may work in one round of the event loop."""


class TimeSlices:
    """Lets streams work for a few milliseconds a round of the event loop, all together; then one of them a round, in order.

    A stream of 200,000 tiny messages that have all come never waits for anything. Without slices, it keeps the loop for a second,
    and a hundred such streams keep it for minutes.
    """

    def __init__(self) -> None:
        self._began: float | None = None
        self._queue = asyncio.Lock()

    def is_over(self) -> bool:
        """Whether the streams have had their time of this round; then wait for the `next` one."""
        if self._began is None:
            self._began = perf_counter()
            asyncio.get_running_loop().call_soon(self._end)
            return False
        return perf_counter() - self._began > _SLICE

    async def next(self) -> None:
        """Wait for a round of this stream's own."""
        async with self._queue:
            await asyncio.sleep(0)

    def _end(self) -> None:
        self._began = None
