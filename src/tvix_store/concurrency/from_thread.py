"""from_thread: an iterator whose steps take long, such as reads of a file, walked in threads."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from typing import TypeVar

T = TypeVar("T")


async def from_thread(items: Iterator[T]) -> AsyncGenerator[T, None]:
    """The items. Each step is taken in a thread, while others run here. No item is None."""
    while (item := await asyncio.to_thread(next, items, None)) is not None:
        yield item
