"""Many things, by calls for some of them each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

DIGESTS_A_CALL = 16 * 1024
"""Half a MiB of digests, in one message."""
AROUND = 16
"""Bytes around a part of a message, at most: its key and length, and a share of those of the message."""
T = TypeVar("T")


def parts(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """The items in sequences of `size`."""
    return (items[at : at + size] for at in range(0, len(items), size))


def filling(items: Sequence[T], size_of: Callable[[T], int], size: int | None, count: int) -> Iterator[list[T]]:
    """The items in lists of up to `size`, or one, and up to `count`. None is any size."""
    some: list[T] = []
    total = 0
    for item in items:
        if some and ((size is not None and total + size_of(item) > size) or len(some) == count):
            yield some
            some, total = [], 0
        some.append(item)
        total += size_of(item)
    if some:
        yield some
