"""Long loops that let others have a turn: an event loop serves everybody, and a directory may have 190,000 entries."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
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
