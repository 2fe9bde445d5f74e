"""Replay: a stream that can be read again while little of it was read."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Replay(Generic[T]):
    """Keeps items of `source` up to `most` bytes, as `size` says. Beyond that, the stream can be read on, but not again.

    A source that gives a new iterator each time, as a list-like object does, is read anew instead, and nothing is kept. A source
    that has failed cannot be repeated: its rest is lost.
    """

    def __init__(self, source: AsyncIterable[T], most: int, size: Callable[[T], int]) -> None:
        self._source = source
        self._left = most
        self._size = size
        self._iterator = aiter(source)
        self._gives_new_ones = self._iterator is not source
        self._is_fresh = True
        self._has_failed = False
        self._kept: list[T] = []

    @property
    def can_repeat(self) -> bool:
        """Whether `items` may be called again."""
        return not self._has_failed and (self._gives_new_ones or self._left >= 0)

    async def items(self) -> AsyncGenerator[T, None]:
        """All items, from the begin."""
        if self._gives_new_ones and not self._is_fresh:
            self._iterator = aiter(self._source)
        self._is_fresh = False
        for item in self._kept:
            yield item
        while True:
            try:
                item = await anext(self._iterator)
            except StopAsyncIteration:
                return
            except BaseException:
                self._has_failed = True
                raise
            if not self._gives_new_ones:
                self._keep(item)
            yield item

    def _keep(self, item: T) -> None:
        self._left -= self._size(item)
        if self._left >= 0:
            self._kept.append(item)
        else:
            self._kept.clear()
