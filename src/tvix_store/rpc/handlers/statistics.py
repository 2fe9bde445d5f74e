"""StatisticsService: how much a store holds."""

from __future__ import annotations

import asyncio
from dataclasses import astuple

from tvix_store.protocol.dialects import STATISTICS_SERVICE
from tvix_store.protocol.statistics import encode_statistics
from tvix_store.rpc.method import Call, Method, Unary
from tvix_store.services.store import Statistics


def statistics_methods(statistics: Statistics) -> dict[str, Method]:
    """The call of StatisticsService by its path. One count goes on at a time: it reads the whole index."""
    one = asyncio.Semaphore(1)

    async def get(_message: bytes, _call: Call) -> bytes:
        async with one:
            return encode_statistics(astuple(await statistics.stats()))

    return {f"/{STATISTICS_SERVICE}/Get": Unary(get)}
