"""each_at_once, missing_at_once: one call for each of many items, some at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import TypeVar

H = TypeVar("H", bound=Hashable)
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


async def missing_at_once(is_there: Callable[[H], Awaitable[bool]], items: Sequence[H]) -> set[H]:
    """Those of the items that are not there. Each is asked about once."""
    distinct = list(dict.fromkeys(items))
    there = await each_at_once(is_there, distinct)
    return {item for item, item_is_there in zip(distinct, there, strict=True) if not item_is_there}
