"""Long loops that let others have a turn: an event loop serves everybody, and a directory may have 190,000 entries."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from time import perf_counter
from typing import TypeVar

T = TypeVar("T")

TURN = 2048
"""Steps of a few µs each that are taken before others have their turn."""


async def in_turns(items: Iterable[T]) -> AsyncIterator[T]:
    """The items; others have a turn every `TURN` of them."""
    for number, item in enumerate(items, 1):
        yield item
        if number % TURN == 0:
            await asyncio.sleep(0)


_SECONDS = 0.005


class Turn:
    """The turn of a loop whose steps take longer, and are not all alike: over after 5 ms."""

    __slots__ = ("_end",)

    def __init__(self) -> None:
        self._end = perf_counter() + _SECONDS

    async def step(self) -> None:
        """Let others have their turn, if this one is over."""
        if perf_counter() > self._end:
            await asyncio.sleep(0)
            self._end = perf_counter() + _SECONDS
