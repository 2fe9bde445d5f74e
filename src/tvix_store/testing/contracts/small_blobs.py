"""The contract of BlobService's `put_many` and `get_many`."""

from __future__ import annotations

import asyncio

import pytest

from tvix_store.chunking import DEFAULT_SIZES
from tvix_store.errors import ExhaustedError, InvalidError, NotFoundError
from tvix_store.model.digest import EMPTY, Digest
from tvix_store.services.blobs import SMALL_BLOB, BlobService, get_all
from tvix_store.testing.content import collect, missing, noise, stream


@pytest.mark.asyncio
class SmallBlobsContract:
    """The part of BlobServiceContract that is about batches."""

    many = 1500
    """How many blobs are many. Where each is a call of its own, fewer show the same in less time."""

    async def test_many_blobs_are_put_and_got_in_order(self, blobs: BlobService) -> None:
        contents = [noise(37 * n % 5000, f"many {n}") for n in range(self.many)]
        digests = await blobs.put_many(contents)
        assert digests == [Digest.of(content) for content in contents]
        assert await blobs.get_many(digests[::-1]) == contents[::-1]

    async def test_missing_tells_which_blobs_are_not_there(self, blobs: BlobService) -> None:
        large, small = noise(SMALL_BLOB + 1, "missing large"), noise(100, "missing small")
        absent = Digest.of(b"never put")
        wanted = [Digest.of(large), absent, Digest.of(small), absent]
        assert await blobs.missing(wanted) == set(wanted)
        await blobs.put(stream([large]))
        assert await blobs.missing(wanted) == {absent, Digest.of(small)}
        await blobs.put_many([small])
        assert await blobs.missing(wanted) == {absent}
        assert await blobs.missing([]) == set()

    async def test_no_blobs_are_put_and_got_as_none(self, blobs: BlobService) -> None:
        assert await blobs.put_many([]) == []
        assert await blobs.get_many([]) == []

    async def test_the_same_blob_may_stand_several_times_in_a_batch(self, blobs: BlobService) -> None:
        one, two = noise(5000, "twice"), noise(70_000, "once")
        digests = await blobs.put_many([one, two, one, b"", one, b""])
        assert digests == [Digest.of(one), Digest.of(two), Digest.of(one), EMPTY, Digest.of(one), EMPTY]
        assert await blobs.get_many(digests) == [one, two, one, b"", one, b""]

    async def test_a_blob_put_in_a_batch_is_as_one_put_alone(self, blobs: BlobService) -> None:
        for size in (0, 1, DEFAULT_SIZES.minimum, DEFAULT_SIZES.minimum + 1, DEFAULT_SIZES.average, SMALL_BLOB):
            data = noise(size, f"batched {size}")
            [digest] = await blobs.put_many([data])
            batched = await blobs.stat(digest, chunks=True)
            assert batched is not None, size
            assert await collect(blobs.read(digest)) == data, size
            assert await blobs.put(stream([data])) == digest, size
            assert await blobs.stat(digest, chunks=True) == batched, size
            assert await blobs.get_many([digest]) == [data], size

    async def test_blobs_put_alone_are_got_in_a_batch(self, blobs: BlobService) -> None:
        contents = [noise(size, "alone") for size in (1, 40_000, SMALL_BLOB)]
        digests = [await blobs.put(stream([content])) for content in contents]
        assert await blobs.get_many(digests) == contents

    async def test_a_batch_of_large_small_blobs_fits(self, blobs: BlobService) -> None:
        contents = [noise(SMALL_BLOB, f"batch {n}") for n in range(24)]
        assert await blobs.get_many(await blobs.put_many(contents)) == contents

    async def test_a_blob_too_large_for_put_many_is_refused(self, blobs: BlobService) -> None:
        with pytest.raises(InvalidError):
            await blobs.put_many([b"small", noise(SMALL_BLOB + 1, "too large")])
        assert await blobs.stat(Digest.of(noise(SMALL_BLOB + 1, "too large"))) is None

    @pytest.mark.parametrize("content", [noise(SMALL_BLOB + 1, "too large to get"), bytes(SMALL_BLOB + 1)], ids=["noise", "zeros"])
    async def test_a_blob_too_large_for_get_many_is_refused(self, blobs: BlobService, content: bytes) -> None:
        """Also if it is one chunk, as zeros are."""
        small, just_small = await blobs.put_many([b"small", content[1:]])
        large = await blobs.put(stream([content]))
        with pytest.raises(ExhaustedError):
            await blobs.get_many([small, large])
        assert await blobs.get_many([small, just_small]) == [b"small", content[1:]]

    async def test_a_batch_tells_which_blobs_are_missing(self, blobs: BlobService) -> None:
        one, two = await blobs.put_many([b"there", b"too"])
        assert await blobs.get_many([one, missing(), two, one, missing("other")]) == [b"there", None, b"too", b"there", None]
        assert await blobs.get_many([missing()]) == [None]

    async def test_of_blobs_that_must_be_there_a_missing_one_is_named(self, blobs: BlobService) -> None:
        [there] = await blobs.put_many([b"there"])
        assert await get_all(blobs, [there, there]) == [b"there", b"there"]
        with pytest.raises(NotFoundError) as caught:
            await get_all(blobs, [there, missing()])
        assert str(missing()) in str(caught.value)

    async def test_batches_may_be_put_at_once(self, blobs: BlobService) -> None:
        batches = [[noise(3000, f"{n % 4} {m}") for m in range(self.many // 30)] for n in range(12)]
        digests = await asyncio.gather(*map(blobs.put_many, batches))
        assert await asyncio.gather(*map(blobs.get_many, digests)) == batches
