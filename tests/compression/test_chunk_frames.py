"""Chunks as frames: what is compressed for the way is the same chunk."""

from __future__ import annotations

import zstandard

from tvix_store.compression.chunk_frames import checked_contents, compressed_chunks
from tvix_store.model.digest import Digest
from tvix_store.testing.content import noise


def test_a_frame_that_is_not_shorter_is_not_taken() -> None:
    """A frame as long as its content would be taken for the content."""
    contents = [noise(size, "some") + bytes(zeros) for size in range(80) for zeros in range(40)]
    assert any(len(zstandard.compress(content, 3)) == len(content) for content in contents), "or this tests nothing"
    chunks = [(Digest.of(content).raw, len(content), content) for content in contents]
    assert checked_contents(compressed_chunks(chunks), 1000) == contents
