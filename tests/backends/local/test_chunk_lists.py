"""The chunk list of a huge blob is put in parts: memory is bounded, and no part of it is visible before the last one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tvix_store.backends.local import blob_writer, chunk_lists, open_store
from tvix_store.backends.local.chunk_lists import ChunkListWriter
from tvix_store.backends.local.committer import Committer
from tvix_store.backends.local.contents import Content
from tvix_store.backends.local.records import Kind
from tvix_store.errors import ExhaustedError
from tvix_store.model.digest import Digest
from tvix_store.services.blobs import Chunk
from tvix_store.services.store import Store
from tvix_store.testing.content import collect, noise, pieces

BLOB = noise(1_000_000, "of many segments")
AT_A_TIME = 8


@pytest.fixture
def handed_over(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many segments were in memory each time when some were handed over."""
    for module in (chunk_lists, blob_writer):
        monkeypatch.setattr(module, "SEGMENT_CHUNKS", 2)
    monkeypatch.setattr(blob_writer, "_SEGMENTS", AT_A_TIME)
    made = gone = 0
    counts: list[int] = []
    segments = ChunkListWriter.segments

    def counted(writer: ChunkListWriter, blob: bytes) -> Iterator[Content]:
        nonlocal made
        for segment in segments(writer, blob):
            made += 1
            yield segment

    def counting(put: Callable[..., Any]) -> Callable[..., Any]:
        def put_counted(committer: Committer, contents: Sequence[Content]) -> Any:
            nonlocal gone
            listed = [content for content in contents if content.kind is Kind.CHUNK_LIST]
            if listed:
                counts.append(made - gone)
                gone += len(listed)
            return put(committer, contents)

        return put_counted

    monkeypatch.setattr(ChunkListWriter, "segments", counted)
    for name in ("put_contents", "write_contents"):
        monkeypatch.setattr(Committer, name, counting(getattr(Committer, name)))
    return counts


async def put_as_stream(store: Store) -> Digest:
    return await store.blobs.put(pieces(BLOB, 100_000))


async def put_as_chunks(store: Store) -> Digest:
    chunks = [BLOB[at : at + 900] for at in range(0, len(BLOB), 900)]
    digests = await store.blobs.put_many(chunks)
    assert store.assembling is not None
    listed = [Chunk(digest, len(chunk)) for digest, chunk in zip(digests, chunks, strict=True)]
    await store.assembling.assemble(Digest.of(BLOB), listed)
    return Digest.of(BLOB)


@pytest.mark.parametrize("put", [put_as_stream, put_as_chunks])
async def test_few_segments_are_in_memory(tmp_path: Path, handed_over: list[int], put: Callable[[Store], Any]) -> None:
    async with await open_store(tmp_path / "store", chunk_average=4096) as store:
        digest = await put(store)
        assert len(handed_over) > 5
        assert max(handed_over) <= 2 * AT_A_TIME
        assert await collect(store.blobs.read(digest)) == BLOB


@pytest.mark.parametrize("part", [0, 3])
async def test_a_list_that_is_put_in_part_is_not_visible(
    tmp_path: Path, handed_over: list[int], monkeypatch: pytest.MonkeyPatch, part: int
) -> None:
    write = Committer.write_contents

    def write_some(committer: Committer, contents: Sequence[Content]) -> Any:
        if contents and contents[0].kind is Kind.CHUNK_LIST and len(handed_over) > part:
            raise ExhaustedError("the disk is full")
        return write(committer, contents)

    async with await open_store(tmp_path / "store", chunk_average=4096) as store:
        with monkeypatch.context() as patch:
            patch.setattr(Committer, "write_contents", write_some)
            with pytest.raises(ExhaustedError):
                await put_as_stream(store)
        await store.blobs.put_many([b"what was written is named with this"])
        assert await store.blobs.missing([Digest.of(BLOB)]) == {Digest.of(BLOB)}
        await put_as_stream(store)
        assert await collect(store.blobs.read(Digest.of(BLOB))) == BLOB
