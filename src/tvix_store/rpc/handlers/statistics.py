"""StatisticsService: how much a store holds."""

from __future__ import annotations

import asyncio
from dataclasses import astuple

from tvix_store.protocol.dialects import STATISTICS_SERVICE
from tvix_store.protocol.statistics import encode_statistics
from tvix_store.rpc.method import Call, Method, Unary
from tvix_store.services.store import Statistics, Stats


def statistics_methods(statistics: Statistics) -> dict[str, Method]:
    """The call of StatisticsService by its path. One count goes on at a time, since it reads the whole index: who asks meanwhile
    gets its result, which may lack what was put after it began.
    """
    count = _SharedCount(statistics)

    async def get(_message: bytes, _call: Call) -> bytes:
        return encode_statistics(astuple(await count.stats()))

    return {f"/{STATISTICS_SERVICE}/Get": Unary(get)}


class _SharedCount:
    """Statistics whose callers share the count that is under way; it is called off when nobody waits for it any more."""

    def __init__(self, statistics: Statistics) -> None:
        self._statistics = statistics
        self._task: asyncio.Task[Stats] | None = None
        self._waiters = 0

    async def stats(self) -> Stats:
        task = self._task = self._task or asyncio.create_task(self._statistics.stats())
        self._waiters += 1
        try:
            return await asyncio.shield(task)
        finally:
            self._waiters -= 1
            if not self._waiters:
                task.cancel()
                self._task = None
