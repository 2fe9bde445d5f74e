"""each_at_once: one call for each of many items, some at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

S = TypeVar("S")
T = TypeVar("T")

CALLS_AT_ONCE = 32
"""Calls to a service that run at a time: each may be a round trip to a server."""


async def each_at_once(call: Callable[[S], Awaitable[T]], items: Sequence[S], at_once: int = CALLS_AT_ONCE) -> list[T]:
    """The results of `call` for all items, in order; at most `at_once` calls run at a time. The first error ends the rest."""
    results: dict[int, T] = {}
    waiting = iter(enumerate(items))

    async def work() -> None:
        for number, item in waiting:
            results[number] = await call(item)

    workers = [asyncio.ensure_future(work()) for _ in range(min(at_once, len(items)))]
    try:
        await asyncio.gather(*workers)
    finally:
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
    return [results[number] for number in range(len(items))]
