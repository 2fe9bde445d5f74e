"""Chunks as zstd frames that somebody else made: checked before a byte of them is kept.

A store keeps the frame as it came, and passes it on as a part of larger zstd files. So it must be one whole frame of RFC 8878 and
nothing else, and no decoder may need more for it than for a frame of ours.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import zstandard
from blake3 import blake3

from tvix_store.compression.samples import looks_compressible
from tvix_store.errors import InvalidError

_MAX_WINDOW = 8 << 20
"""Bytes: what every decoder of RFC 8878 must take, by its section 3.1.1.1.2."""
_LEVEL = 3
"""As stores compress."""
_SMALL = 32 << 10
"""Bytes up to which a chunk is compressed without looking at samples of it."""


def chunk_content(
    stored: bytes | memoryview, length: int, decompressor: zstandard.ZstdDecompressor | None = None
) -> bytes | memoryview:
    """The content of a chunk of `length` bytes, of which `stored` is kept: one zstd frame if it is shorter, or the chunk itself.

    A `decompressor` that is used for many spares making one each.

    Raises:
        InvalidError: it is neither.
    """
    if len(stored) == length:
        return stored
    if len(stored) > length:
        raise InvalidError(f"a chunk of {length} bytes is sent in {len(stored)}")
    try:
        frame = zstandard.get_frame_parameters(stored)
        if frame.content_size != length or frame.window_size > _MAX_WINDOW or frame.dict_id:
            raise InvalidError("a chunk's zstd frame states another size, a window of more than 8 MiB, or a dictionary")
        return (decompressor or zstandard.ZstdDecompressor()).decompress(stored, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise InvalidError(f"a chunk is no zstd frame: {error}") from None


def checked_contents(chunks: Iterable[tuple[bytes, int, bytes | memoryview]], most: int) -> list[bytes | memoryview]:
    """The contents of chunks, each given as digest, length and what is stored; held against the digest. Blocks: runs in a thread.

    Raises:
        InvalidError: one is not what its digest says, or is larger than `most` bytes.
    """
    decompressor = zstandard.ZstdDecompressor()
    contents: list[bytes | memoryview] = []
    for digest, length, stored in chunks:
        if length > most:
            raise InvalidError(f"chunk b3:{digest.hex()} has {length} bytes; a chunk has at most {most}")
        content = chunk_content(stored, length, decompressor)
        if blake3(content).digest() != digest:
            raise InvalidError(f"what was sent as chunk b3:{digest.hex()} is something else")
        contents.append(content)
    return contents


def compressed_chunks(
    chunks: Sequence[tuple[bytes, int, bytes | memoryview]],
) -> list[tuple[bytes, int, bytes | memoryview]]:
    """The chunks, given as digest, length and what is stored, as frames where that is shorter. Blocks: runs in a thread."""
    compressor = zstandard.ZstdCompressor(level=_LEVEL)
    smaller: list[tuple[bytes, int, bytes | memoryview]] = []
    for digest, length, stored in chunks:
        is_frame = len(stored) != length
        if not is_frame and (length <= _SMALL or looks_compressible(stored)):
            frame = compressor.compress(stored)
            smaller.append((digest, length, frame if len(frame) < length else stored))
        else:
            smaller.append((digest, length, stored))
    return smaller
