"""Chunks as they are stored: one zstd frame, or as they are where that is not smaller."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import cast

import zstandard

from tvix_store.backends.local.records import Buffer

_PARALLEL_FROM = 512 << 10
"""Bytes of content from which several threads decompress; -1 means one a core."""
_FEW = 256 << 10
"""Bytes of content up to which a compressor that is there is used, for one after the other: the call for many begins with 37 µs."""
_LARGE = 32 << 10
"""Bytes of an average chunk from which that is done as well. To make a compressor costs a tenth of the time for 8 chunks of 128
KiB, and a quarter where two threads share them."""
_of_thread = threading.local()
"""Holds compressors and a decompressor: one must not be used by two threads at once."""


def packed(payloads: Sequence[Buffer], level: int, threads: int) -> list[Buffer]:
    """Each payload as it is to be stored. Works on many in one native call, which `threads` threads share."""
    # The native call leaves out empty inputs, so they must not go in.
    some = [payload for payload in payloads if len(payload)]
    if not some:
        return list(payloads)
    frames: Iterator[Buffer]
    size = sum(map(len, some))
    if size <= _FEW or (threads == 1 and size >= _LARGE * len(some)):
        compressor = _compressor(level)
        frames = iter([compressor.compress(payload) for payload in some])
    else:
        # A BufferSegment offers the buffer protocol, which its type stub does not say.
        frames = iter(
            cast("Sequence[Buffer]", zstandard.ZstdCompressor(level=level).multi_compress_to_buffer(some, threads=threads))
        )
    pairs = ((payload, next(frames) if len(payload) else payload) for payload in payloads)
    return [frame if len(frame) < len(payload) else payload for payload, frame in pairs]


def _compressor(level: int) -> zstandard.ZstdCompressor:
    """This thread's own."""
    compressors: dict[int, zstandard.ZstdCompressor] | None = getattr(_of_thread, "compressors", None)
    if compressors is None:
        compressors = _of_thread.compressors = {}
    if level not in compressors:
        compressors[level] = zstandard.ZstdCompressor(level=level)
    return compressors[level]


def unpack(frame: bytes, size: int) -> bytes | None:
    """The content of a zstd frame, whose size is given; None where it is not such a frame."""
    decompressor: zstandard.ZstdDecompressor | None = getattr(_of_thread, "decompressor", None)
    if decompressor is None:
        decompressor = _of_thread.decompressor = zstandard.ZstdDecompressor()
    try:
        # The frame's own word for its size is checked first: the library allocates by it.
        return bytes(decompressor.decompress(frame)) if zstandard.frame_content_size(frame) == size else None
    except zstandard.ZstdError:
        return None


def unpacked(frames: Sequence[tuple[memoryview, int]], *, shared: bool) -> Sequence[Buffer] | None:
    """As `unpack`, the content of each frame; None where one of them is not such a frame.

    Works on many in one native call, which several threads share where it is worth it, and may be `shared`.
    """
    if not frames:
        return ()
    threads = -1 if shared and sum(size for _, size in frames) >= _PARALLEL_FROM else 1
    try:
        if all(zstandard.frame_content_size(frame) == size for frame, size in frames):
            contents = zstandard.ZstdDecompressor().multi_decompress_to_buffer([frame for frame, _ in frames], threads=threads)
            return cast("Sequence[Buffer]", contents)
    except zstandard.ZstdError:
        pass
    return None
