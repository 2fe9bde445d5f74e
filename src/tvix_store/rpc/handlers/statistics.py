"""StatisticsService: how much a store holds."""

from __future__ import annotations

import asyncio
from dataclasses import astuple

from tvix_store.concurrency.single_flight import SingleFlight
from tvix_store.protocol.dialects import STATISTICS_SERVICE
from tvix_store.protocol.statistics import encode_statistics
from tvix_store.rpc.method import Call, Method, Unary
from tvix_store.services.statistics import Statistics, Stats


def statistics_methods(statistics: Statistics) -> dict[str, Method]:
    """The call of StatisticsService by its path.

    A count reads the whole index, so there is one at a time. A caller that asks during a count gets the result of that count,
    and content that was put after its begin may be missing from the figures.
    """
    counts = SingleFlight[None, Stats](lambda _: asyncio.create_task(statistics.stats()))

    async def get(_message: bytes, _call: Call) -> bytes:
        return encode_statistics(astuple(await counts.result(None)))

    return {f"/{STATISTICS_SERVICE}/Get": Unary(get)}
