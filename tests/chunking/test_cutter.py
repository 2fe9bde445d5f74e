"""The cuts: golden, within their bounds, and the same however a blob is fed."""

import hashlib
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tvix_store.chunking import DEFAULT_SIZES, ChunkSizes, Cutter, cut
from tvix_store.errors import InvalidError

KIB = 1024
TINY = ChunkSizes.of_average(256)
BYTES = hashlib.shake_256(b"tvix-store golden cuts").digest(4 << 20)

# From the Rust crate: fastcdc 3.2.1, v2020::FastCDC::new(BYTES, minimum, average, maximum).
GOLDEN = {
    DEFAULT_SIZES: [
        *(82366, 114235, 190664, 104204, 220072, 316008, 38671, 152422, 95372, 60550, 48358, 91140, 88995, 58238, 112039, 167194),
        *(64073, 147724, 83285, 319920, 159237, 146281, 183308, 40385, 66360, 196868, 352906, 136793, 41196, 198233, 117207),
    ],
    ChunkSizes(128 * KIB, 256 * KIB, 512 * KIB): [
        *(413211, 524288, 286721, 150344, 228493, 337471, 295082, 380712, 253888, 272890, 204869, 489699, 298083, 58553),
    ],
}


def fed(cutter: Cutter, pieces: list[bytes]) -> list[bytes]:
    chunks = [bytes(chunk) for piece in pieces for chunk in cutter.feed(piece)]
    return chunks + [bytes(chunk) for chunk in cutter.finish()]


def in_pieces(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


@pytest.mark.parametrize("sizes", GOLDEN, ids=str)
def test_the_cuts_are_those_of_the_rust_crate(sizes: ChunkSizes) -> None:
    assert [len(chunk) for chunk in cut(BYTES, sizes)] == GOLDEN[sizes]


@given(
    lengths=st.lists(st.integers(0, 9000), max_size=12),
    sizes=st.sampled_from([TINY, ChunkSizes(64, 300, 1024), ChunkSizes(127, 256, 1025)]),
)
def test_the_cuts_do_not_depend_on_the_pieces(lengths: list[int], sizes: ChunkSizes) -> None:
    data, pieces = BYTES[: sum(lengths)], []
    for at, length in zip((sum(lengths[:n]) for n in range(len(lengths))), lengths, strict=True):
        pieces.append(data[at : at + length])
    assert fed(Cutter(sizes), pieces) == [bytes(chunk) for chunk in cut(data, sizes)]


@pytest.mark.parametrize("size", [4095, 64 * KIB, 512 * KIB, 512 * KIB + 1, 2048 * KIB, 2048 * KIB + 1, 3 << 20])
def test_the_cuts_of_the_default_sizes_do_not_depend_on_the_pieces(size: int) -> None:
    assert [len(chunk) for chunk in fed(Cutter(), in_pieces(BYTES, size))] == GOLDEN[DEFAULT_SIZES]


@settings(deadline=None)
@given(st.binary(max_size=8000), st.integers(0, 3))
def test_chunks_join_to_the_blob_and_keep_their_bounds(seed: bytes, repeats: int) -> None:
    blob = seed * repeats
    chunks = [bytes(chunk) for chunk in cut(blob, TINY)]
    assert b"".join(chunks) == blob
    assert all(0 < len(chunk) <= TINY.maximum for chunk in chunks)
    assert all(len(chunk) >= TINY.minimum for chunk in chunks[:-1])


def test_zeros_are_cut_into_chunks_of_the_maximal_size() -> None:
    assert [len(chunk) for chunk in cut(bytes(10 * 1024), TINY)] == [1024] * 10


@pytest.mark.parametrize("size", [1, DEFAULT_SIZES.minimum])
def test_a_blob_up_to_the_minimal_size_is_one_chunk(size: int) -> None:
    assert [len(chunk) for chunk in cut(BYTES[:size])] == [size]


def test_an_empty_blob_has_no_chunk() -> None:
    assert cut(b"") == []
    assert Cutter().finish() == []


def test_a_chunk_is_its_own_only_chunk() -> None:
    assert all(len(cut(bytes(chunk))) == 1 for chunk in cut(BYTES))


def test_a_cutter_can_be_used_for_one_blob_after_another() -> None:
    cutter = Cutter()
    first = fed(cutter, in_pieces(BYTES, 1 << 20))
    assert fed(cutter, in_pieces(BYTES, 1 << 20)) == first


def test_a_large_piece_is_cut_where_it_lies() -> None:
    chunks = Cutter().feed(BYTES)
    assert chunks[-1].obj is BYTES


@pytest.mark.parametrize(
    "sizes",
    [
        *[(63, 256, 1024), (64, 255, 1024), (64, 256, 1023), (512, 256, 1024), (64, 2048, 1024)],
        *[(2**20 + 1, 2**22, 2**24), (2**20, 2**22 + 1, 2**24), (2**20, 2**22, 2**24 + 1)],
    ],
)
def test_sizes_that_the_algorithm_does_not_take_are_refused(sizes: tuple[int, int, int]) -> None:
    with pytest.raises(InvalidError, match="chunk sizes"):
        ChunkSizes(*sizes)


@pytest.mark.parametrize("sizes", [(64, 256, 1024), (256, 256, 1024), (64, 1024, 1024), (2**20, 2**22, 2**24)])
def test_the_least_and_the_largest_sizes_are_taken(sizes: tuple[int, int, int]) -> None:
    least, _, most = sizes
    chunks = [len(chunk) for chunk in cut(BYTES, ChunkSizes(*sizes))]
    assert sum(chunks) == len(BYTES)
    assert all(least <= size <= most for size in chunks[:-1])


def test_without_the_compiled_package_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyfastcdc.cy", None)
    monkeypatch.delattr("pyfastcdc.cy")
    with pytest.raises(ImportError, match="pip install"):
        cut(BYTES, ChunkSizes(64, 256, 1030))
