"""A bound on the memory for content that is read ahead."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

_CAPACITY = 64 << 20


class ReadAhead:
    """Bytes of memory for content that is read ahead, shared by all readers of a process, on its event loop.

    A reader that finds no room reads piece by piece, which is slower. So a thousand clients that ask and do not read make the
    process keep no more than a thousand pieces.
    """

    def __init__(self, capacity: int = _CAPACITY) -> None:
        self._left = capacity

    @contextmanager
    def room(self, size: int) -> Iterator[bool]:
        """Whether there is room for `size` bytes, which are held until the end of the `with`."""
        is_there = size <= self._left
        if is_there:
            self._left -= size
        try:
            yield is_there
        finally:
            if is_there:
                self._left += size


READ_AHEAD = ReadAhead()
