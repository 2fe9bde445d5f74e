"""Decompressor: compressed bytes in, bounded pieces out; and the limits on how much comes out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from tvix_store.errors import ExhaustedError, InvalidError

MAX_PIECE = 1 << 20
"""Most bytes of a piece that a decompressor gives out."""
SMALL_PIECE = 64 << 10
"""Bytes up to which pieces are put together. A caller that asks for each piece in a thread pays 66 µs for the hop."""
MAX_WINDOW = 128 << 20
"""Most bytes of history that a stream may make us keep. It is what zstd's own tools, and with them Nix, decompress unasked
(window log 27, up to which `zstd --ultra -22` and `--long` go); `xz -9` takes 64 MiB, `lzip -9` 32 MiB, brotli at most 16 MiB."""
WINDOWS = (2 << 20, 8 << 20, 16 << 20, 64 << 20, MAX_WINDOW)
"""Bytes of history that streams may want: `zstd -3` takes 2 MiB, `xz -6` and `zstd -19` 8, brotli 16, `xz -9` 64.

A server begins with the first. A stream that wants more raises WindowError, and begins again with the next."""
NARROW_WINDOW = WINDOWS[2]
"""Most bytes of history that streams with usual settings need."""
MAX_RATIO = 40_000
"""Most bytes given out for a byte taken in.

zstd makes 1 byte of up to 32,768 zeros, xz of 7,000, gzip of 1,032 and lz4 of 255. So a sparse file of any size passes in these.
In bzip2 and brotli, zeros go beyond 1,000,000."""
RATIO_FROM = 1 << 30
"""Bytes given out from which `MAX_RATIO` counts: up to here it costs a second of one thread, and a file of zeros is no crime."""
MAX_OUTPUT = 1 << 40
"""Most bytes given out in all, unless the caller says less."""


class WindowError(ExhaustedError):
    """The stream wants more history kept than is allowed. Where that shows at once, one that may keep more can begin again."""


class Decompressor(Protocol):
    """Decompresses one stream. After an error it is of no further use."""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The decompressed bytes of `data`, the next part of the stream: pieces of 1 byte to 1 MiB, each made when it is asked for.

        All of them must be taken before the next `feed` or `finish`. Native code does the work without the interpreter's lock.

        Raises:
            InvalidError: the stream is damaged, or something follows it.
            ExhaustedError: it wants more memory, or makes more bytes, than the limits allow.
        """
        ...

    def finish(self) -> None:
        """No more bytes.

        Raises:
            InvalidError: the stream is cut short, or had an error.
        """
        ...


class Limited:
    """A decompressor whose output is limited, in all and in proportion to its input."""

    def __init__(self, inner: Decompressor, name: str, *, max_ratio: int, max_output: int, ratio_from: int) -> None:
        self._inner = inner
        self._name = name
        self._max_ratio = max_ratio
        self._max_output = max_output
        self._ratio_from = ratio_from
        self._taken = 0
        self._given = 0
        self._refused = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        self._check()
        # Stays so when `inner` raises, or when the caller leaves off half-way.
        self._refused = True
        self._taken += len(data)
        most = min(self._max_output, max(self._ratio_from, self._taken * self._max_ratio))
        small: list[bytes] = []
        size = 0
        for piece in self._inner.feed(data):
            self._given += len(piece)
            if self._given > most:
                raise ExhaustedError(self._excess())
            if small and size + len(piece) > MAX_PIECE:
                yield b"".join(small)
                small, size = [], 0
            if len(piece) > SMALL_PIECE and not small:
                yield piece
            else:
                small.append(piece)
                size += len(piece)
        if small:
            yield b"".join(small)
        self._refused = False

    def finish(self) -> None:
        self._check()
        self._inner.finish()

    def _check(self) -> None:
        if self._refused:
            raise InvalidError(f"{self._name}: the compressed data was refused before")

    def _excess(self) -> str:
        if self._given > self._max_output:
            return f"{self._name}: the compressed data makes more than {self._max_output} bytes"
        return (
            f"{self._name}: {self._taken} bytes of compressed data make more than {self._given - 1} bytes, "
            f"over {self._max_ratio} for each (counted from {self._ratio_from} bytes)"
        )
