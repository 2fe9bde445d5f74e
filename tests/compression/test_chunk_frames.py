"""Chunks as frames: what is made for the way is what is taken at its end."""

from __future__ import annotations

import zstandard
from blake3 import blake3

from tvix_store.compression.chunk_frames import checked_contents, chunk_content, compressed_chunks
from tvix_store.testing.content import noise


def stored(content: bytes) -> tuple[bytes, int, bytes]:
    return blake3(content).digest(), len(content), content


def as_long_as_its_frame() -> bytes:
    """A content whose frame is exactly as long: it must stay as it is, or it would be taken for its own frame."""
    contents = (noise(100 - same, "tie") + bytes(same) for same in range(60))
    return next(content for content in contents if len(zstandard.compress(content, 3)) == len(content))


def test_chunks_are_compressed_where_that_is_shorter() -> None:
    contents = [b"", b"x", b"text " * 100, noise(1000), noise(100_000), b"text " * 100_000, as_long_as_its_frame()]
    frames = compressed_chunks([stored(content) for content in contents])
    assert [len(kept) < length for _, length, kept in frames] == [False, False, True, False, False, True, False]
    assert [bytes(content) for content in checked_contents(frames, 1 << 20)] == contents
    assert [bytes(chunk_content(kept, length)) for _, length, kept in frames] == contents


def test_frames_stay_as_they_are() -> None:
    content = b"text " * 1000
    frame = zstandard.compress(content, 1)
    assert compressed_chunks([(blake3(content).digest(), len(content), frame)]) == [(blake3(content).digest(), len(content), frame)]
