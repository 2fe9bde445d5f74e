"""PushStream: hands items, one by one, to a coroutine that takes them as a stream and runs beside."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class PushStream(Generic[T, R]):
    """`consume` runs as `task` from the start; it sees the items that are sent until `end`.

    At most `room` items wait for it, so the sender goes no faster than it does.
    """

    def __init__(self, consume: Callable[[AsyncIterator[T]], Coroutine[Any, Any, R]], *, room: int) -> None:
        self._items: asyncio.Queue[tuple[T] | None] = asyncio.Queue(room)
        self.task = asyncio.create_task(consume(self._stream()))

    async def send(self, item: T) -> None:
        """Hand `item` on, when there is room.

        Raises:
            Exception: what the consumer has raised.
        """
        await self._put((item,))

    async def end(self) -> None:
        """There are no more items; the result is that of `task`.

        Raises:
            Exception: what the consumer has raised.
        """
        await self._put(None)

    async def _put(self, item: tuple[T] | None) -> None:
        if self.task.done():
            # A consumer that has enough, and does not say why, is its caller's bug.
            assert item is None or self.task.exception() is not None
            self.task.result()
            return
        if not self._items.full():
            self._items.put_nowait(item)
            return
        waiting = asyncio.ensure_future(self._items.put(item))
        try:
            await asyncio.wait((waiting, self.task), return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
        if self.task.done():
            self.task.result()

    async def _stream(self) -> AsyncIterator[T]:
        while (item := await self._items.get()) is not None:
            yield item[0]
