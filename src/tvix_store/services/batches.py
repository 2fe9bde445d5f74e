"""Many things, by calls for some of them each."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import TypeVar

T = TypeVar("T")


def parts(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """The items in sequences of `size`."""
    return (items[at : at + size] for at in range(0, len(items), size))


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """The items in lists of `size`; the last one may be shorter. They are taken as they are wanted."""
    rest = iter(items)
    while some := list(islice(rest, size)):
        yield some


async def gathered(items: AsyncIterable[T], size: int) -> AsyncIterator[list[T]]:
    """The items in lists of `size`; the last one may be shorter."""
    some: list[T] = []
    async for item in items:
        some.append(item)
        if len(some) == size:
            yield some
            some = []
    if some:
        yield some


def filling(
    items: Iterable[T], size_of: Callable[[T], int], *, size: int | None = None, count: int | None = None
) -> Iterator[list[T]]:
    """The items in lists of up to `size` and up to `count`, or of one that is larger. None is any size, or any count."""
    some: list[T] = []
    total = 0
    for item in items:
        its_size = size_of(item)
        if some and ((size is not None and total + its_size > size) or len(some) == count):
            yield some
            some, total = [], 0
        some.append(item)
        total += its_size
    if some:
        yield some
