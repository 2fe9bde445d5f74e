"""from_thread: an iterator whose steps take long, such as reads of a file, walked in threads."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


def from_thread(items: Iterator[T]) -> AsyncIterator[T]:
    """The items. Each step is taken in a thread, while others run here. No item is None. It may be left before its end."""
    return _Steps(items)


class _Steps(Generic[T]):
    """No generator: one that is left would have to be closed."""

    def __init__(self, items: Iterator[T]) -> None:
        self._items = items

    def __aiter__(self) -> AsyncIterator[T]:
        return self

    async def __anext__(self) -> T:
        item = await asyncio.to_thread(next, self._items, None)
        if item is None:
            raise StopAsyncIteration
        return item
