"""The contract of StoredFrames."""

from __future__ import annotations

import pytest
import zstandard

from tvix_store.errors import CorruptError, NotFoundError
from tvix_store.model.digest import Digest
from tvix_store.services.frames import Frame, StoredFrames
from tvix_store.services.store import Store
from tvix_store.testing.content import collect, missing, noise, stream

CONTENTS = (b"", b"small", b"compressible " * 1000, noise(70_000, "frames"), noise(3_000_000, "cut"), b"text" * 1_000_000)


def _content(frame: Frame, stored: memoryview) -> bytes:
    if len(stored) != frame.stored:
        raise CorruptError(f"{frame.stored} bytes are stored, and {len(stored)} were read")
    if frame.stored == frame.length:
        return bytes(stored)
    return zstandard.ZstdDecompressor().decompress(stored, max_output_size=frame.length)


async def put_all(store: Store) -> tuple[StoredFrames, list[list[Frame]]]:
    """The frames of CONTENTS."""
    assert store.frames is not None
    digests = [await store.blobs.put(stream([content])) for content in CONTENTS]
    return store.frames, await store.frames.find(digests)


@pytest.mark.asyncio
class StoredFramesContract:
    """Subclasses give a fixture `store`: a new, empty store, whose `frames` are not None."""

    async def test_the_frames_of_a_blob_are_its_content(self, store: Store) -> None:
        frames, found = await put_all(store)
        for _ in range(2):  # looked up, and remembered
            for content, chunks in zip(CONTENTS, found, strict=True):
                run = b"".join(chunk.digest for chunk in chunks)
                [stored] = await frames.read([run], lambda stored: stored)
                parts = [_content(chunk, part) for chunk, part in zip(chunks, stored, strict=True)]
                assert b"".join(parts) == content
                assert [Digest.of(part).raw for part in parts] == [chunk.digest for chunk in chunks]

    async def test_chunks_are_read_in_any_order_and_as_often_as_they_are_named(self, store: Store) -> None:
        frames, found = await put_all(store)
        chunks = [chunk for each in found for chunk in each if chunk.length]
        orders = [chunks[::-1], chunks[::2] + chunks[1::2], [chunks[0], *chunks, chunks[0], chunks[0]], [], chunks[:1]]
        runs = [b"".join(chunk.digest for chunk in order) for order in orders]
        for order, stored in zip(orders, await frames.read(runs, lambda stored: stored), strict=True):
            for chunk, part in zip(order, stored, strict=True):
                assert Digest.of(_content(chunk, part)).raw == chunk.digest

    async def test_the_chunks_are_those_that_the_blob_service_tells(self, store: Store) -> None:
        _, found = await put_all(store)
        for content, frames in zip(CONTENTS, found, strict=True):
            stat = await store.blobs.stat(Digest.of(content), chunks=True)
            assert stat is not None
            if stat.chunks:
                assert [(chunk.digest.raw, chunk.size) for chunk in stat.chunks] == [(each.digest, each.length) for each in frames]
            else:
                assert [(each.digest, each.length) for each in frames] == [(Digest.of(content).raw, len(content))]

    async def test_what_is_missing_is_told(self, store: Store) -> None:
        frames, found = await put_all(store)
        with pytest.raises(NotFoundError):
            await frames.find([Digest.of(b"small"), missing()])
        with pytest.raises(NotFoundError):
            await frames.read([found[1][0].digest + missing().raw], lambda stored: stored)
        assert await frames.find([]) == []

    async def test_what_the_reader_refuses_is_looked_up_once_more_at_most(self, store: Store) -> None:
        frames, found = await put_all(store)
        run = found[1][0].digest
        for _ in range(2):
            calls = 0

            def refuse(stored: list[list[memoryview]]) -> None:
                nonlocal calls
                calls += 1
                raise CorruptError("it is not what it should be")

            with pytest.raises(CorruptError, match="what it should be"):
                await frames.read([run], refuse)
            assert calls in (1, 2)
            await frames.read([run], lambda stored: None)
        assert await collect(store.blobs.read(Digest(run))) == b"small"
