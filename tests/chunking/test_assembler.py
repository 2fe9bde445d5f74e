"""The chunks of a blob and their digests, whole and in pieces."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tvix_store.chunking import DEFAULT_SIZES, BlobAssembler, ChunkSizes, CutChunk, cut, cut_blob
from tvix_store.model.digest import Digest

TINY = ChunkSizes.of_average(256)
BYTES = hashlib.shake_256(b"tvix-store assembled blobs").digest(1 << 20)


def in_pieces(pieces: list[bytes], sizes: ChunkSizes) -> tuple[bytes, list[CutChunk]]:
    blob = BlobAssembler(sizes)
    chunks = [chunk for piece in pieces for chunk in blob.feed(piece)]
    chunks += blob.finish()
    return blob.digest, chunks


@pytest.mark.parametrize("size", [0, 1, TINY.minimum, TINY.minimum + 1, TINY.maximum, 5 * TINY.maximum, 60_000])
def test_the_chunks_are_the_cuts_with_their_digests(size: int) -> None:
    data = BYTES[:size]
    digest, chunks = cut_blob(data, TINY)
    assert digest == Digest.of(data).raw
    assert [bytes(content) for _, content in chunks] == ([bytes(each) for each in cut(data, TINY)] or [b""])
    assert all(Digest.of(content).raw == chunk for chunk, content in chunks)


@given(st.lists(st.integers(0, 9000), max_size=12))
def test_chunks_do_not_depend_on_the_pieces(lengths: list[int]) -> None:
    ends = [sum(lengths[: n + 1]) for n in range(len(lengths))]
    pieces = [BYTES[end - length : end] for end, length in zip(ends, lengths, strict=True)]
    assert in_pieces(pieces, TINY) == cut_blob(b"".join(pieces), TINY)


@pytest.mark.parametrize("more", [0, 1, TINY.minimum, TINY.maximum])
@pytest.mark.parametrize("chunks", [4, 5, 9])
def test_a_last_chunk_that_comes_alone_has_its_own_digest(chunks: int, more: int) -> None:
    """Zeros are cut at the maximum only. So one chunk is left for the end, or none."""
    data = bytes(chunks * TINY.maximum + more)
    blob = BlobAssembler(TINY)
    assert len(blob.feed(data)) >= chunks
    last = blob.finish()
    assert len(last) == (more > 0 and more < TINY.maximum)
    assert all(Digest.of(content).raw == chunk for chunk, content in last)
    assert in_pieces([data], TINY) == cut_blob(data, TINY)


def test_a_blob_that_is_not_cut_is_its_own_only_chunk() -> None:
    for data in (b"", b"small", BYTES[: DEFAULT_SIZES.minimum]):
        assert cut_blob(data) == in_pieces([data], DEFAULT_SIZES) == (Digest.of(data).raw, [(Digest.of(data).raw, data)])
