"""Cutter: FastCDC (2020) over a stream of pieces.

This is the only module that knows the implementation, `pyfastcdc`. Its cuts are those of the Rust crate's `v2020` with
normalization level 1 (golden cuts in tests/chunking). So other stores that use the crate cut the same chunks.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from tvix_store.chunking.sizes import DEFAULT_SIZES, ChunkSizes

if TYPE_CHECKING:
    from pyfastcdc import FastCDC

_WINDOW = 4
"""Pieces are gathered to this many maximal chunks and cut together: less than a quarter is left over and copied again."""


class Cutter:
    """Cuts one blob that comes in pieces; where it cuts depends on the bytes only, not on the pieces.

    Between calls it holds at most four maximal chunks. The chunks returned are views: each keeps alive the
    buffer of a few chunks, or the piece, that it lies in.
    """

    def __init__(self, sizes: ChunkSizes = DEFAULT_SIZES) -> None:
        self._sizes = sizes
        self._window = _WINDOW * sizes.maximum
        self._held: list[bytes | memoryview] = []
        self._held_size = 0

    def feed(self, data: bytes | memoryview) -> list[memoryview]:
        """Take the next piece, whose bytes must not change any more; the chunks that are certain by now."""
        size = self._held_size + len(data)
        if size < self._window:
            self._held.append(data)
            self._held_size = size
            return []
        piece = memoryview(data)
        joint = memoryview(b"".join((*self._held, piece[: self._window])))
        chunks, end = _certain_chunks(joint, self._sizes)
        tail = joint[end:]
        if len(piece) > self._window:  # the rest of a large piece is cut where it lies
            rest = piece[end - self._held_size :]
            more, end = _certain_chunks(rest, self._sizes)
            chunks += more
            tail = rest[end:]
        self._held, self._held_size = [bytes(tail)], len(tail)
        return chunks

    def finish(self) -> list[memoryview]:
        """The end of the blob: its last chunks."""
        last = b"".join(self._held)
        self._held, self._held_size = [], 0
        return cut(last, self._sizes)


def cut(blob: bytes | memoryview, sizes: ChunkSizes = DEFAULT_SIZES) -> list[memoryview]:
    """The chunks of a whole blob: none of an empty one, one of a blob of at most the minimal size."""
    if len(blob) <= sizes.minimum:
        return [memoryview(blob)] if blob else []
    return [chunk.data for chunk in _algorithm(sizes).cut_buf(blob)]


def _certain_chunks(buffer: memoryview, sizes: ChunkSizes) -> tuple[list[memoryview], int]:
    """The leading chunks that stay as they are whatever follows `buffer`, and where they end.

    A cut depends on no byte beyond one maximal chunk.
    """
    chunks: list[memoryview] = []
    last_start = len(buffer) - sizes.maximum
    end = 0
    for chunk in _algorithm(sizes).cut_buf(buffer):
        if end > last_start:
            break
        chunks.append(chunk.data)
        end += chunk.length
    return chunks, end


@cache
def _algorithm(sizes: ChunkSizes) -> FastCDC:
    """The algorithm for some sizes; it keeps no state between calls of `cut_buf`, so that threads can share it."""
    try:
        # Not `pyfastcdc` itself: without its compiled part that falls back to Python, a thousand times slower.
        from pyfastcdc import cy
    except ImportError as error:
        raise ImportError(
            f"chunking needs pyfastcdc with its compiled part: pip install --force-reinstall pyfastcdc ({error})"
        ) from error
    algorithm: FastCDC = cy.FastCDC(sizes.average, min_size=sizes.minimum, max_size=sizes.maximum, normalized_chunking=1)
    return algorithm
