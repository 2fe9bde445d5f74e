"""Window: the newest bytes of a stream on its way elsewhere, for readers beside."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator

_HELD_BACK = 64 << 10
"""Bytes at the end of a stream that no reader gets before the stream is confirmed. A shorter stream is held back as a whole."""
_KEPT_AT_END = 1 << 20
"""Bytes that stay when the stream is over, for readers that have almost all of it."""


class Window:
    """Shows a stream that may turn out to be wrong, or may begin again, to readers. It keeps up to `room` bytes.

    The writer never waits. A reader that falls behind by more than `room` bytes has lost the stream, and finds the rest elsewhere.
    No reader gets the end of a stream before `confirm` says that the whole was right.
    """

    def __init__(self, room: int) -> None:
        self._room = room
        self._name = b""
        self._size = 0
        self._added = self._kept = 0
        self._first = 0
        """The number of the oldest kept piece."""
        self._pieces: deque[tuple[bytes, int]] = deque()
        """Pieces, and where in the stream each of them ends."""
        self._news = asyncio.Event()
        self.stream = 0
        """The number of the stream, and
        confirmed: that of the stream that was right."""
        self.confirmed: int | None = None
        self._is_over = False

    def begin(self, name: bytes, size: int) -> None:
        """A stream called `name`, of `size` bytes, begins. One before it is given up."""
        self.stream += 1
        self._name = name
        self._size = size
        self._added = self._kept = self._first = 0
        self._pieces.clear()
        self._tell()

    def add(self, piece: bytes) -> None:
        """The stream has gone on."""
        self._added += len(piece)
        self._kept += len(piece)
        self._pieces.append((piece, self._added))
        self._keep_at_most(self._room)
        self._tell()

    def confirm(self) -> None:
        """The stream was right, and is stored as a whole."""
        self.confirmed = self.stream

    def end(self) -> None:
        """Nothing more comes."""
        self._is_over = True
        self._keep_at_most(_KEPT_AT_END)
        self._tell()

    def reader(self, name: bytes) -> WindowReader:
        """A new reader of streams with this name, at the beginning."""
        return WindowReader(self, name)

    async def next_piece(self, name: bytes, stream: int, number: int) -> bytes | None:
        """The piece with this number of a stream; None where it is gone already, or nothing more may be shown."""
        while True:
            at = number - self._first
            if stream != self.stream or at < 0:
                return None
            if at < len(self._pieces) and name == self._name:
                piece, end = self._pieces[at]
                if end <= self._size - _HELD_BACK or self.confirmed == stream:
                    return piece
            if self._is_over:
                return None
            await self._news.wait()

    def _keep_at_most(self, most: int) -> None:
        while self._kept > most:
            piece, _ = self._pieces.popleft()
            self._kept -= len(piece)
            self._first += 1

    def _tell(self) -> None:
        self._news.set()
        self._news = asyncio.Event()


class WindowReader:
    """Reads one stream of a window from its beginning. A reader that has nothing yet goes on with a stream that begins anew.

    Streams of another name are not shown to it.

    at: How many bytes it has read.
    """

    def __init__(self, window: Window, name: bytes) -> None:
        self._window = window
        self._name = name
        self._stream = window.stream
        self.at = 0

    @property
    def was_right(self) -> bool:
        """Whether the bytes that it has read were confirmed."""
        return not self.at or self._stream == self._window.confirmed

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """The pieces of the stream, as far as they may be shown, and as long as the reader keeps up."""
        number = 0
        while True:
            piece = await self._window.next_piece(self._name, self._stream, number)
            if piece is not None:
                number += 1
                self.at += len(piece)
                yield piece
            elif self.at or self._stream == self._window.stream:
                return
            else:
                self._stream = self._window.stream
