"""Streams of frames: the common part of gzip members, bzip2 and xz streams, zstd and lz4 frames and lzip members.

The libraries decompress one frame, and tell where it ended; the next one begins there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NoReturn, Protocol

from tvix_store.compression.decompressor import MAX_PIECE, WindowError
from tvix_store.errors import InvalidError

_FIRST_SLICE = 4096
"""Bytes of input that a new frame is given. A frame that goes on gets twice as many each time.

When a frame ends, the input behind it is copied. With a megabyte of input, each of many empty frames would copy a megabyte."""
_LARGEST_SLICE = 1 << 20


class Frame(Protocol):
    """The interface of `bz2.BZ2Decompressor`, which the other libraries follow."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes | None: ...  # lz4 says None for nothing
    def decompress(self, data: memoryview | bytes, /, max_length: int) -> bytes: ...


class Frames:
    """Decompresses frames that follow each other without a gap.

    With `padding`, zero bytes in multiples of it may stand behind a frame; with `several` False, nothing may.
    `errors` are the library's errors. `whole`, where there is one, is a shorter way for small frames.
    """

    def __init__(
        self,
        name: str,
        new_frame: Callable[[], Frame],
        errors: type[Exception] | tuple[type[Exception], ...],
        *,
        several: bool = True,
        padding: int = 0,
        whole: Callable[[memoryview], tuple[bytes, int] | None] | None = None,
    ) -> None:
        self._name = name
        self._new_frame = new_frame
        self._errors = errors
        self._several = several
        self._padding = padding
        self._whole = whole
        self._padded = 0
        self._frame: Frame | None = None
        self._ended = 0
        self._slice = _FIRST_SLICE
        self._silent = True

    def feed(self, data: bytes) -> Iterator[bytes]:
        view = memoryview(data)
        at = 0
        while at < len(view):
            if self._frame is None:
                at = self._skip_padding(data, at)
                if at == len(view):
                    break
                if self._whole and (taken := self._whole(view[at:])):
                    yield taken[0]
                    at += taken[1]
                    self._ended += 1
                    continue
                self._frame = self._next_frame()
            some = view[at : at + self._slice]
            at += len(some)
            self._slice = min(self._slice * 2, _LARGEST_SLICE)
            yield from self._decompress(self._frame, some)
            if self._frame.eof:
                at -= len(self._frame.unused_data or b"")
                self._frame = None
                self._ended += 1

    def finish(self) -> None:
        if self._frame is not None or not self._ended or (self._padding and self._padded % self._padding):
            raise InvalidError(f"{self._name}: the compressed data is cut short")

    def _next_frame(self) -> Frame:
        if self._ended and not self._several:
            raise InvalidError(f"{self._name}: bytes follow behind the end of the compressed data")
        if self._padding and self._padded % self._padding:
            raise InvalidError(f"{self._name}: {self._padded} bytes of padding are not a multiple of {self._padding}")
        self._padded = 0
        self._slice = _FIRST_SLICE
        self._silent = True
        return self._new_frame()

    def _skip_padding(self, data: bytes, at: int) -> int:
        if not self._padding or not self._ended:
            return at
        rest = len(data[at:].lstrip(b"\0"))
        self._padded += len(data) - at - rest
        return len(data) - rest

    def _decompress(self, frame: Frame, some: memoryview) -> Iterator[bytes]:
        """The decompressed bytes of `some`, until the frame wants more input or ends."""
        given: memoryview | bytes = some
        while True:
            try:
                output = frame.decompress(given, max_length=MAX_PIECE)
            except self._errors as error:
                self._refuse(error)
            if output:
                self._silent = False
                yield output
            if frame.eof or frame.needs_input:
                return
            given = b""

    def _refuse(self, error: Exception) -> NoReturn:
        reason = str(error)
        # liblzma: "Memory usage limit exceeded"; libzstd: "Frame requires too much memory for decoding".
        if "memory" in reason.lower():
            raise WindowError(f"{self._name}: decompressing takes too much memory: {reason}") from None
        if self._ended and self._silent:
            raise InvalidError(f"{self._name}: what follows the end of the compressed data is not more of it: {reason}") from None
        raise InvalidError(f"{self._name}: the compressed data is damaged: {reason}") from None
