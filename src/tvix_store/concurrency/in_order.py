"""in_order: one call for each of many items, some ahead of the consumer, which gets the results in order."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from typing import TypeVar

S = TypeVar("S")
T = TypeVar("T")


async def in_order(call: Callable[[S], Awaitable[T]], items: Iterable[S], at_once: int) -> AsyncGenerator[T, None]:
    """The results of `call`, in the order of the items; at most `at_once` calls run, or have results that nobody took yet.

    Close it when it is not read to its end (`contextlib.aclosing`): the calls that run are cancelled then.
    """
    running: deque[asyncio.Future[T]] = deque()
    rest = iter(items)
    try:
        while True:
            while len(running) < at_once and (item := next(rest, None)) is not None:
                running.append(asyncio.ensure_future(call(item)))
            if not running:
                return
            yield await running[0]
            running.popleft()
    finally:
        for each in running:
            each.cancel()
        await asyncio.gather(*running, return_exceptions=True)
