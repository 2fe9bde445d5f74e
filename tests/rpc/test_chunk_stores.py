"""ChunkStoreService and BlobStoreService: chunks alone, and blobs that are assembled of them. By a client of another make."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.rpc.client import Client
from tests.rpc.schema import message
from tests.rpc.test_store_services import Refusal
from tvix_store.config import open_store
from tvix_store.model.digest import EMPTY, Digest
from tvix_store.protocol import chunk_stores
from tvix_store.services import Store
from tvix_store.services.granular import MAX_CHUNK
from tvix_store.testing.content import collect, missing, noise, stream

PACKAGE = "snix.castore.v1"
STATUS = grpc.StatusCode
PARTS = [noise(size, f"part {size}") for size in (300_000, 1, 2_000_000, 70_000)]
"""Chunks that are not cut as our stores cut; some are cut once more when they are stored."""
WHOLE = b"".join(PARTS)


@pytest.fixture(params=["memory", "local", "fallback"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    """The stores that assemble, and one that cannot."""
    async with await open_store("memory://" if request.param == "memory" else str(tmp_path / "store")) as store:
        yield replace(store, assembling=None) if request.param == "fallback" else store


async def call(client: Client, name: str, answer: str, **fields: Any) -> Any:
    service = "ChunkStoreService" if "Chunk" in name else "BlobStoreService"
    kind = "BSStatBlobRequest" if name == "StatBlob" else f"{name}Request"
    return await client.unary(f"/{PACKAGE}.{service}/{name}", message(f"{PACKAGE}.{kind}")(**fields), f"{PACKAGE}.{answer}")


async def put_chunk(client: Client, data: bytes, size: int = 100_000) -> bytes:
    request = message(f"{PACKAGE}.PutChunkRequest")
    pieces = [request(data=data[at : at + size]) for at in range(0, len(data), size)]
    put = await client.requests(f"/{PACKAGE}.ChunkStoreService/PutChunk", pieces, f"{PACKAGE}.PutChunkResponse")
    digest: bytes = put.digest
    return digest


async def put_blob(client: Client, digest: Digest, chunks: Sequence[tuple[Digest, int]]) -> None:
    meta = message(f"{PACKAGE}.BlobMeta")
    listed = [meta.ChunkMeta(digest=each.raw, size=size) for each, size in chunks]
    await call(client, "PutBlob", "BSPutBlobResponse", digest=digest.raw, blob_meta=meta(chunks=listed))


async def chunks_of(client: Client, digest: Digest) -> list[tuple[Digest, int]]:
    answer = await call(client, "GetBlob", "GetBlobResponse", digest=digest.raw)
    return [(Digest(chunk.digest), chunk.size) for chunk in answer.blob_meta.chunks]


def listed(parts: Sequence[bytes]) -> list[tuple[Digest, int]]:
    return [(Digest.of(part), len(part)) for part in parts]


async def test_a_chunk_comes_back(client: Client) -> None:
    for part in PARTS:
        digest = Digest.of(part)
        with Refusal(STATUS.NOT_FOUND, str(digest)):
            await call(client, "StatChunk", "StatChunkResponse", digest=digest.raw)
        assert await put_chunk(client, part) == digest.raw
        await call(client, "StatChunk", "StatChunkResponse", digest=digest.raw)
        request = message(f"{PACKAGE}.GetChunkRequest")(digest=digest.raw)
        answers = await client.answers(f"/{PACKAGE}.ChunkStoreService/GetChunk", request, f"{PACKAGE}.GetChunkResponse")
        assert b"".join(answer.data for answer in answers) == part


async def test_an_absent_chunk_or_blob_is_not_found(client: Client) -> None:
    request = message(f"{PACKAGE}.GetChunkRequest")(digest=missing().raw)
    with Refusal(STATUS.NOT_FOUND, str(missing())):
        await client.answers(f"/{PACKAGE}.ChunkStoreService/GetChunk", request, f"{PACKAGE}.GetChunkResponse")
    with Refusal(STATUS.NOT_FOUND, str(missing())):
        await chunks_of(client, missing())
    with Refusal(STATUS.NOT_FOUND, str(missing())):
        await call(client, "StatBlob", "BSStatBlobResponse", digest=missing().raw)


async def test_a_chunk_has_a_bound(client: Client, store: Store) -> None:
    assert await put_chunk(client, bytes(MAX_CHUNK)) == Digest.of(bytes(MAX_CHUNK)).raw
    with Refusal(STATUS.RESOURCE_EXHAUSTED, f"at most {MAX_CHUNK} bytes"):
        await put_chunk(client, noise(MAX_CHUNK + 1))
    assert await store.blobs.stat(Digest.of(noise(MAX_CHUNK + 1))) is None


async def test_a_blob_is_assembled_of_chunks(client: Client, store: Store) -> None:
    for part in PARTS:
        await put_chunk(client, part)
    digest = Digest.of(WHOLE)
    with Refusal(STATUS.NOT_FOUND):
        await call(client, "StatBlob", "BSStatBlobResponse", digest=digest.raw)
    await put_blob(client, digest, listed(PARTS))
    await call(client, "StatBlob", "BSStatBlobResponse", digest=digest.raw)
    assert await collect(store.blobs.read(digest)) == WHOLE
    assert await collect(store.blobs.read(digest, 299_999, 300_500)) == WHOLE[299_999:300_500]
    chunks = await chunks_of(client, digest)
    assert b"".join([await collect(store.blobs.read(chunk)) for chunk, _ in chunks]) == WHOLE
    assert [size for _, size in chunks] == [len(await collect(store.blobs.read(chunk))) for chunk, _ in chunks]
    await put_blob(client, digest, chunks)


async def test_assembling_stores_no_content_again(client: Client, store: Store) -> None:
    if store.statistics is None or store.assembling is None:
        pytest.skip("this store cannot tell, or does not assemble")
    for part in PARTS:
        await put_chunk(client, part)
    before = await store.statistics.stats()
    await put_blob(client, Digest.of(WHOLE), listed(PARTS))
    after = await store.statistics.stats()
    assert (after.chunks, after.unique_bytes) == (before.chunks, before.unique_bytes)
    assert after.chunked_blobs == before.chunked_blobs + 1


async def test_chunks_that_are_not_the_blob_are_refused(client: Client, store: Store) -> None:
    for part in PARTS:
        await put_chunk(client, part)
    digest, chunks = Digest.of(WHOLE), listed(PARTS)
    first, size = chunks[0]
    for wrong, words in (
        (chunks[1:], "are not blob"),
        (chunks[::-1], "are not blob"),
        ([*chunks, chunks[1]], "are not blob"),
        ([], "is not empty, but no chunks are listed"),
        ([(first, size - 1), *chunks[1:]], f"has not {size - 1} bytes"),
        ([(first, size + 1), *chunks[1:]], f"has not {size + 1} bytes"),
        ([*chunks, (EMPTY, 0)], "a chunk has 1 to"),
        ([(first, MAX_CHUNK + 1), *chunks[1:]], "a chunk has 1 to"),
    ):
        with Refusal(STATUS.INVALID_ARGUMENT, words):
            await put_blob(client, digest, wrong)
    with Refusal(STATUS.FAILED_PRECONDITION, f"chunk {missing()} is not in the store; put it first"):
        await put_blob(client, digest, [*chunks, (missing(), 5)])
    assert await store.blobs.stat(digest) is None


async def test_the_empty_blob_has_no_chunks(client: Client, store: Store) -> None:
    with Refusal(STATUS.NOT_FOUND):
        await chunks_of(client, EMPTY)
    await put_blob(client, EMPTY, [])
    assert await chunks_of(client, EMPTY) == []
    assert await collect(store.blobs.read(EMPTY)) == b""


async def test_a_blob_of_one_chunk_lists_it(client: Client, store: Store) -> None:
    [small] = await store.blobs.put_many([b"small"])
    assert await chunks_of(client, small) == [(small, 5)]
    await put_blob(client, small, [(small, 5)])
    part = Digest.of(PARTS[0])
    await put_chunk(client, PARTS[0])
    await put_blob(client, part, [(part, len(PARTS[0]))])
    assert await collect(store.blobs.read(part)) == PARTS[0]


async def test_a_blob_that_was_put_whole_is_told_by_its_chunks(client: Client, store: Store) -> None:
    digest = await store.blobs.put(stream([WHOLE]))
    chunks = await chunks_of(client, digest)
    assert len(chunks) > 1
    assert b"".join([await collect(store.blobs.read(chunk)) for chunk, _ in chunks]) == WHOLE


CHUNKS = st.lists(st.tuples(st.binary(min_size=32, max_size=32).map(Digest), st.integers(0, (1 << 64) - 1)), max_size=4)


@given(st.binary(min_size=32, max_size=32).map(Digest), CHUNKS)
def test_lists_are_what_protobuf_makes_of_them(digest: Digest, chunks: list[tuple[Digest, int]]) -> None:
    meta = message(f"{PACKAGE}.BlobMeta")
    entries = [meta.ChunkMeta(digest=each.raw, size=size) for each, size in chunks]
    got = message(f"{PACKAGE}.GetBlobResponse")(blob_meta=meta(chunks=entries)).SerializeToString()
    assert chunk_stores.encode_blob_meta(chunks) == got
    assert chunk_stores.decode_blob_meta(got) == chunks
    put = message(f"{PACKAGE}.PutBlobRequest")(digest=digest.raw, blob_meta=meta(chunks=entries)).SerializeToString()
    assert chunk_stores.encode_put_blob(digest, chunks) == put
    assert chunk_stores.decode_put_blob(put) == (digest, chunks)
