"""The contract of Assembling."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tvix_store.errors import InvalidError, NotFoundError
from tvix_store.model.digest import Digest
from tvix_store.services.assembling import Assembling
from tvix_store.services.blobs import Chunk
from tvix_store.services.store import Store
from tvix_store.testing.content import collect, missing, noise, stream

PARTS = (noise(70_000, "first"), b"small", noise(3_000_000, "cut itself"), b"small", noise(100_000, "last"))
WHOLE = b"".join(PARTS)


def assembling(store: Store) -> Assembling:
    assert store.assembling is not None
    return store.assembling


async def put_parts(store: Store, parts: Sequence[bytes] = PARTS) -> list[Chunk]:
    return [Chunk(await store.blobs.put(stream([part])), len(part)) for part in parts]


@pytest.mark.asyncio
class AssemblingContract:
    """Subclasses give a fixture `store`: a new, empty store, whose `assembling` is not None."""

    async def test_a_blob_is_made_of_blobs_that_are_there(self, store: Store) -> None:
        chunks = await put_parts(store)
        await assembling(store).assemble(Digest.of(WHOLE), chunks)
        assert await collect(store.blobs.read(Digest.of(WHOLE))) == WHOLE
        assert await collect(store.blobs.read(Digest.of(WHOLE), 69_990, 70_010)) == WHOLE[69_990:70_010]

    async def test_it_has_a_list_of_chunks_that_are_readable_alone(self, store: Store) -> None:
        await assembling(store).assemble(Digest.of(WHOLE), await put_parts(store))
        stat = await store.blobs.stat(Digest.of(WHOLE), chunks=True)
        assert stat is not None
        assert stat.size == len(WHOLE)
        contents = [await collect(store.blobs.read(chunk.digest)) for chunk in stat.chunks]
        assert [len(content) for content in contents] == [chunk.size for chunk in stat.chunks]
        assert b"".join(contents) == WHOLE

    async def test_one_part_is_the_blob_already(self, store: Store) -> None:
        for part in (b"only", noise(1_000_000, "only")):
            [chunk] = await put_parts(store, [part])
            await assembling(store).assemble(chunk.digest, [chunk])
            assert await collect(store.blobs.read(chunk.digest)) == part

    async def test_parts_that_are_not_the_blob_are_refused(self, store: Store) -> None:
        chunks = await put_parts(store)
        for wrong in (chunks[:-1], chunks[::-1], [*chunks, chunks[0]], []):
            with pytest.raises(InvalidError):
                await assembling(store).assemble(Digest.of(WHOLE), wrong)
        assert await store.blobs.stat(Digest.of(WHOLE)) is None

    @pytest.mark.parametrize("part", [0, 1, 2])
    async def test_a_part_of_another_size_is_refused(self, store: Store, part: int) -> None:
        chunks = await put_parts(store)
        for size in (0, chunks[part].size - 1, chunks[part].size + 1):
            wrong = [*chunks[:part], Chunk(chunks[part].digest, size), *chunks[part + 1 :]]
            with pytest.raises(InvalidError):
                await assembling(store).assemble(Digest.of(WHOLE), wrong)
        assert await store.blobs.stat(Digest.of(WHOLE)) is None

    async def test_a_missing_part_is_named(self, store: Store) -> None:
        chunks = await put_parts(store)
        with pytest.raises(NotFoundError) as caught:
            await assembling(store).assemble(Digest.of(WHOLE), [*chunks, Chunk(missing("part"), 5)])
        assert str(missing("part")) in str(caught.value)
        assert await store.blobs.stat(Digest.of(WHOLE)) is None
