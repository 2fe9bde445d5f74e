"""The contract of BlobService: streams, chunks and ranges. Small blobs in batches are in `small_blobs`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from tvix_store.chunking import DEFAULT_SIZES
from tvix_store.errors import NotFoundError
from tvix_store.model.digest import EMPTY, Digest
from tvix_store.services.blobs import SMALL_BLOB, BlobService
from tvix_store.testing.content import collect, missing, noise, pieces, stream
from tvix_store.testing.contracts.small_blobs import SmallBlobsContract

KIB = 1024
MIB = 1024 * KIB
SIZES = sorted(
    edge + beside
    for edge in (DEFAULT_SIZES.minimum, 64 * KIB, DEFAULT_SIZES.average, SMALL_BLOB, DEFAULT_SIZES.maximum, MIB, 4 * MIB)
    for beside in (-1, 0, 1)
)
SOME = 3 * MIB + 7
RANGES = [
    *((0, 0), (0, 1), (1, 2), (1, None), (5, 5), (7, 3), (0, SOME), (0, SOME + 1), (SOME - 1, None), (SOME, None)),
    *((SOME + 5, None), (SOME + 5, SOME + 9), (MIB - 1, MIB + 1), (MIB, 2 * MIB), (100_000, 3_000_000), (2_999_999, SOME + 1)),
]


class Interrupted(Exception):  # noqa: N818
    """What an input stream fails with."""


async def _interrupted(data: bytes) -> AsyncIterator[bytes]:
    """`data` in pieces, and no end."""
    async for piece in pieces(data, MIB):
        yield piece
    raise Interrupted


class BlobServiceContract(SmallBlobsContract):
    """Subclasses give a fixture `blobs`: a service that may hold other blobs, but none of these."""

    async def test_a_blob_that_was_not_put_is_absent(self, blobs: BlobService) -> None:
        assert await blobs.stat(missing()) is None
        assert await blobs.stat(missing(), chunks=True) is None
        with pytest.raises(NotFoundError) as caught:
            await collect(blobs.read(missing()))
        assert str(missing()) in str(caught.value)

    async def test_the_empty_blob_is_a_blob(self, blobs: BlobService) -> None:
        assert await blobs.put(stream([])) == EMPTY
        assert await blobs.put(stream([b"", b""])) == EMPTY
        stat = await blobs.stat(EMPTY, chunks=True)
        assert stat is not None
        assert stat.size in {0, None}
        assert not stat.chunks
        assert await collect(blobs.read(EMPTY)) == b""

    async def test_a_blob_reads_as_it_was_put(self, blobs: BlobService) -> None:
        for size in (1, 12, 4096, *SIZES):
            data = noise(size, f"size {size}")
            assert await blobs.put(stream([data])) == Digest.of(data), size
            assert await collect(blobs.read(Digest.of(data))) == data, size

    async def test_a_blob_of_zeros_reads_as_it_was_put(self, blobs: BlobService) -> None:
        for size in (1, 4096, SMALL_BLOB, 20 * MIB):
            assert await collect(blobs.read(await blobs.put(pieces(bytes(size), MIB)))) == bytes(size), size

    async def test_the_cuts_of_the_input_do_not_matter(self, blobs: BlobService) -> None:
        for cut in (997, 65_537, MIB, 5 * MIB):
            data = noise(2 * MIB + 3, f"cut {cut}")
            assert await blobs.put(pieces(data, cut)) == Digest.of(data), cut
            assert await collect(blobs.read(Digest.of(data))) == data, cut

    async def test_empty_and_tiny_pieces_of_input_are_pieces(self, blobs: BlobService) -> None:
        data = noise(300_000, "tiny pieces")
        parts = [b"", *(data[at : at + 1] for at in range(50)), b"", data[50:200_000], b"", data[200_000:], b""]
        assert await blobs.put(stream(parts)) == Digest.of(data)
        assert await collect(blobs.read(Digest.of(data))) == data

    async def test_a_large_blob_is_read_in_pieces_of_at_most_a_mebibyte(self, blobs: BlobService) -> None:
        data = noise(20 * MIB, "large")
        digest = await blobs.put(pieces(data, 300_000))
        parts = [part async for part in blobs.read(digest)]
        assert all(0 < len(part) <= MIB for part in parts)
        assert b"".join(parts) == data

    async def test_a_range_is_what_a_slice_is(self, blobs: BlobService) -> None:
        data = noise(SOME, "ranges")
        digest = await blobs.put(pieces(data, MIB))
        for start, stop in RANGES:
            assert await collect(blobs.read(digest, start, stop)) == data[start:stop], (start, stop)

    async def test_a_range_of_a_small_blob_is_what_a_slice_is(self, blobs: BlobService) -> None:
        data = noise(1000, "small ranges")
        digest = await blobs.put(stream([data]))
        for start, stop in ((0, None), (1, None), (0, 999), (999, None), (1000, None), (1001, 1002), (500, 5000), (7, 7)):
            assert await collect(blobs.read(digest, start, stop)) == data[start:stop], (start, stop)

    async def test_a_range_of_a_missing_blob_is_not_found(self, blobs: BlobService) -> None:
        with pytest.raises(NotFoundError):
            await collect(blobs.read(missing(), 1, 2))

    async def test_a_read_may_be_given_up(self, blobs: BlobService) -> None:
        data = noise(8 * MIB, "given up")
        digest = await blobs.put(pieces(data, MIB))
        for _ in range(20):
            async for piece in blobs.read(digest):
                assert data.startswith(piece)
                break
        assert await collect(blobs.read(digest)) == data

    async def test_reads_may_take_turns(self, blobs: BlobService) -> None:
        data = noise(3 * MIB, "turns")
        digest = await blobs.put(pieces(data, MIB))
        readings = [blobs.read(digest), blobs.read(digest, 1000)]
        firsts = [await anext(reading) for reading in readings]
        rests = [await collect(reading) for reading in readings]
        assert [first + rest for first, rest in zip(firsts, rests, strict=True)] == [data, data[1000:]]

    async def test_stat_tells_the_size_or_that_it_is_not_known(self, blobs: BlobService) -> None:
        for size in (1, SMALL_BLOB, SMALL_BLOB + 1, SOME):
            digest = await blobs.put(stream([noise(size, "stat")]))
            stat = await blobs.stat(digest)
            assert stat is not None
            assert stat.size in {size, None}
            assert not stat.chunks

    async def test_the_chunks_of_a_blob_join_to_it(self, blobs: BlobService) -> None:
        data = noise(SOME, "chunks")
        stat = await blobs.stat(await blobs.put(pieces(data, MIB)), chunks=True)
        assert stat is not None
        at = 0
        for chunk in stat.chunks:
            assert chunk.digest == Digest.of(data[at : at + chunk.size])
            at += chunk.size
        assert at in {SOME, 0}

    async def test_a_chunk_reads_as_a_blob(self, blobs: BlobService) -> None:
        data = noise(SOME, "readable chunks")
        stat = await blobs.stat(await blobs.put(pieces(data, MIB)), chunks=True)
        assert stat is not None
        chunks = [await collect(blobs.read(chunk.digest)) for chunk in stat.chunks]
        assert b"".join(chunks) in {data, b""}
        for chunk in stat.chunks[:3]:
            own = await blobs.stat(chunk.digest, chunks=True)
            assert own is not None
            assert own.size in {chunk.size, None}
            assert not own.chunks

    async def test_a_chunk_may_be_put_as_a_blob(self, blobs: BlobService) -> None:
        data = noise(2 * MIB, "chunk put")
        digest = await blobs.put(pieces(data, MIB))
        stat = await blobs.stat(digest, chunks=True)
        assert stat is not None
        for chunk in stat.chunks[:2]:
            part = await collect(blobs.read(chunk.digest))
            assert await blobs.put(stream([part])) == chunk.digest
            assert await collect(blobs.read(chunk.digest)) == part
        assert await collect(blobs.read(digest)) == data

    async def test_blobs_with_a_common_part_keep_apart(self, blobs: BlobService) -> None:
        first, second = noise(2 * MIB, "common"), noise(2 * MIB, "common") + noise(MIB, "own")
        digests = [await blobs.put(pieces(first, MIB)), await blobs.put(pieces(second, MIB))]
        assert [await collect(blobs.read(digest)) for digest in digests] == [first, second]

    async def test_putting_a_blob_again_changes_nothing(self, blobs: BlobService) -> None:
        data = noise(2 * MIB, "again")
        digest = await blobs.put(pieces(data, 70_000))
        before = await blobs.stat(digest, chunks=True)
        assert await blobs.put(pieces(data, MIB)) == digest
        assert await blobs.stat(digest, chunks=True) == before
        assert await collect(blobs.read(digest)) == data

    async def test_a_put_whose_input_fails_leaves_no_blob(self, blobs: BlobService) -> None:
        for size in (0, 1000, SMALL_BLOB + 1, 3 * MIB):
            data = noise(size, f"failing {size}") or noise(10, "failing")
            with pytest.raises(Interrupted):
                await blobs.put(_interrupted(data[:size]))
            assert await blobs.stat(Digest.of(data)) is None, size
            with pytest.raises(NotFoundError):
                await collect(blobs.read(Digest.of(data)))
            assert await blobs.put(stream([data])) == Digest.of(data), size
            assert await collect(blobs.read(Digest.of(data))) == data, size

    async def test_a_cancelled_put_leaves_no_blob(self, blobs: BlobService) -> None:
        data = noise(3 * MIB, "cancelled")
        reached = asyncio.Event()

        async def stuck() -> AsyncIterator[bytes]:
            yield data
            reached.set()
            await asyncio.Event().wait()

        putting = asyncio.create_task(blobs.put(stuck()))
        await reached.wait()
        putting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await putting
        assert await blobs.stat(Digest.of(data)) is None

    async def test_equal_blobs_may_be_put_at_once(self, blobs: BlobService) -> None:
        data = noise(2 * MIB, "at once")
        digests = await asyncio.gather(*(blobs.put(pieces(data, 50_000 + n)) for n in range(10)))
        assert set(digests) == {Digest.of(data)}
        assert await collect(blobs.read(Digest.of(data))) == data

    async def test_different_blobs_may_be_put_and_read_at_once(self, blobs: BlobService) -> None:
        contents = [noise(100_000 * n, f"different {n}") for n in range(16)]

        async def round_trip(data: bytes) -> bytes:
            return await collect(blobs.read(await blobs.put(pieces(data, 60_000))))

        assert await asyncio.gather(*map(round_trip, contents)) == contents
