"""Parts of content over gRPC: with our BulkService, over snix's services of chunks, and over BlobService alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.backends.grpc_servers import serve, store_methods
from tvix_store.backends.grpc import granular as grpc_granular
from tvix_store.backends.grpc import open_store
from tvix_store.backends.grpc.chunk_store_granular import ChunkStoreGranular
from tvix_store.backends.grpc.granular import BulkGranular
from tvix_store.backends.local import open_store as open_local
from tvix_store.backends.memory import open_store as open_memory
from tvix_store.errors import InvalidError
from tvix_store.model.digest import Digest
from tvix_store.model.directory import SizeRule
from tvix_store.model.nodes import FileNode
from tvix_store.model.path_info import PathInfo
from tvix_store.model.store_path import StorePath
from tvix_store.operations.granular.plain import granular_of
from tvix_store.protocol.chunk_tables import MAX_CONTENT
from tvix_store.protocol.dialects import BLOB_STORE_SERVICE, BULK_SERVICE, CHUNK_STORE_SERVICE, SNIX
from tvix_store.protocol.settings import PARTS_VERSION, StoreSettings
from tvix_store.rpc.handlers.settings import settings_methods
from tvix_store.rpc.method import Method
from tvix_store.services.blobs import Chunk
from tvix_store.services.frames import Frame
from tvix_store.services.granular import MAX_CHUNK, Granular
from tvix_store.services.store import Store
from tvix_store.testing.content import collect, file_nar, missing, noise
from tvix_store.testing.contracts import GranularContract
from tvix_store.testing.contracts.granular import compressed, put, stored_chunk
from tvix_store.testing.contracts.path_infos import PathInfoServiceContract

pytestmark = pytest.mark.usefixtures("protocol")


class TestBulkService(GranularContract, PathInfoServiceContract):
    @pytest.fixture(params=["local", "memory"])
    async def store(self, request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
        async with (
            await (open_local(tmp_path / "store") if request.param == "local" else open_memory()) as served,
            serve(await store_methods(store=served, granular=True)) as url,
            await open_store(url) as store,
        ):
            assert isinstance(store.granular, BulkGranular)
            yield store


class TestChunkStore(GranularContract):
    """As snix is since 2026."""

    @pytest.fixture
    async def store(self) -> AsyncIterator[Store]:
        async with serve(await store_methods(dialects=[SNIX], bulk=False, chunks=True)) as url, await open_store(url) as store:
            assert isinstance(store.granular, ChunkStoreGranular)
            yield store


class TestChunkStoreAlone(TestChunkStore):
    """As snix may be one day: without BlobService."""

    @pytest.fixture
    async def store(self) -> AsyncIterator[Store]:
        methods = await store_methods(dialects=[SNIX], bulk=False, chunks=True, whole_blobs=False)
        async with serve(methods) as url, await open_store(url) as store:
            yield store


class TestBlobService(GranularContract):
    """As snix was until 2025."""

    knows_sizes = False

    @pytest.fixture
    async def store(self) -> AsyncIterator[Store]:
        async with serve(await store_methods(dialects=[SNIX], bulk=False)) as url, await open_store(url) as store:
            yield store

    @pytest.fixture
    def granular(self, store: Store) -> Granular:
        assert store.granular is None
        return granular_of(store)


class TestOlderBulkService(TestBlobService):
    """A server of ours that has the first calls of BulkService only."""

    @pytest.fixture
    async def store(self) -> AsyncIterator[Store]:
        async with serve(await store_methods()) as url, await open_store(url) as store:
            yield store


def watched(methods: dict[str, Method], *calls: str) -> dict[str, list[int]]:
    """The sizes in bytes of the messages that come to each of the calls, from now on."""
    sizes: dict[str, list[int]] = {call: [] for call in calls}

    def watch(call: str, method: Method) -> Method:
        decode = method.takes.decode

        def decoded(message: bytes) -> object:
            sizes[call].append(len(message))
            return message if decode is None else decode(message)

        return replace(method, takes=replace(method.takes, decode=decoded))

    methods.update({call: watch(call, methods[call]) for call in calls})
    return sizes


def bulk(call: str) -> str:
    return f"/{BULK_SERVICE}/{call}"


async def test_chunks_that_are_worth_it_are_compressed_for_the_way() -> None:
    methods = await store_methods(granular=True)
    sizes = watched(methods, bulk("PutChunks"))
    async with serve(methods) as url, await open_store(url) as store:
        assert store.granular is not None
        text, small = b"compressible " * 20_000, b"tiny" * 100
        for content in (text, small):
            await put(store.granular, [stored_chunk(content)])
        framed = compressed(noise(2000, "head") + bytes(200_000), level=1)
        await put(store.granular, [stored_chunk(noise(2000, "head") + bytes(200_000), framed)])
        random = noise(100_000, "random")
        await put(store.granular, [stored_chunk(random)])
        as_text, as_small, as_frame, as_random = sizes[bulk("PutChunks")]
        assert as_text < 2000
        assert as_small < 200
        assert len(framed) < as_frame < len(framed) + 100
        assert len(random) < as_random < len(random) + 100
        for content in (text, small, random):
            assert await collect(store.blobs.read(Digest.of(content))) == content


async def test_chunks_are_put_in_messages_of_a_mebibyte_and_some_megabytes_of_content() -> None:
    methods = await store_methods(granular=True)
    sizes = watched(methods, bulk("PutChunks"))
    async with serve(methods) as url, await open_store(url) as store:
        assert store.granular is not None
        await put(store.granular, [stored_chunk(noise(400_000, str(n))) for n in range(7)])
        assert len(sizes[bulk("PutChunks")]) == 4
        assert max(sizes[bulk("PutChunks")]) < 1_050_000
        zeros = [bytes(MAX_CHUNK - n) for n in range(6)]
        await put(store.granular, [stored_chunk(each, compressed(each)) for each in zeros])
        assert len(sizes[bulk("PutChunks")]) == 6
        assert 4 * MAX_CHUNK == MAX_CONTENT
        assert await store.granular.missing_chunks([Digest.of(each) for each in zeros]) == set()


async def test_long_lists_go_and_come_in_several_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tvix_store.rpc.handlers.granular._ROWS", 3)
    monkeypatch.setattr("tvix_store.backends.grpc.granular.MESSAGE", 100)
    methods = await store_methods(granular=True)
    sizes = watched(methods, bulk("Assemble"))
    async with serve(methods) as url, await open_store(url) as store:
        assert store.granular is not None
        parts = [noise(50_000, str(n)) for n in range(7)]
        whole = b"".join(parts)
        chunks = await put(store.granular, [stored_chunk(part) for part in parts])
        await store.granular.assemble(Digest.of(whole), chunks)
        assert len(sizes[bulk("Assemble")]) == 4
        lists = await store.granular.list_chunks([Chunk(Digest.of(whole), len(whole)), *chunks])
        assert [(chunk.digest, chunk.length) for chunk in lists[0]] == [(chunk.digest.raw, chunk.size) for chunk in chunks]
        assert [len(each) for each in lists] == [7, *[1] * 7]
        assert lists[0][-1] == lists[7][0]
        assert list(lists[0][2:5]) == [each[0] for each in lists[3:6]]


async def test_many_paths_are_one_call() -> None:
    methods = await store_methods(granular=True)
    sizes = watched(methods, bulk("GetPathInfos"), bulk("ExistingPaths"))
    del methods[SNIX.path_info("Get")]
    async with serve(methods) as url, await open_store(f"{url}?dialect=snix") as store:
        hashes = [noise(20, str(n)) for n in range(3000)]
        assert await store.path_infos.get_many(hashes) == {}
        assert await store.path_infos.existing(hashes) == {}
        assert await store.path_infos.get_many([]) == {}
        assert [len(each) for each in sizes.values()] == [1, 1]


async def path_infos_in(store: Store, count: int) -> list[PathInfo]:
    """Path infos of content that the store has."""
    contents = [b"%d" % n for n in range(count)]
    digests = await store.blobs.put_many(contents)
    return [
        PathInfo(StorePath(noise(20, str(n)), f"n{n}"), FileNode(digest, len(content), False), file_nar(content))
        for n, (digest, content) in enumerate(zip(digests, contents, strict=True))
    ]


async def test_path_infos_that_are_put_at_the_same_time_travel_together() -> None:
    methods = await store_methods(granular=True)
    sizes = watched(methods, bulk("PutPathInfos"))
    async with serve(methods) as url, await open_store(url) as store:
        path_infos = await path_infos_in(store, 100)
        wrong = replace(path_infos[50], nar=file_nar(b"else"))
        given = [*path_infos[:50], wrong, *path_infos[51:]]
        outcomes = await asyncio.gather(*map(store.path_infos.put, given), return_exceptions=True)
        assert 0 < len(sizes[bulk("PutPathInfos")]) < 10
        assert isinstance(outcomes.pop(50), InvalidError)
        assert outcomes == [*path_infos[:50], *path_infos[51:]]
        there = await store.path_infos.existing([each.store_path.output_hash for each in path_infos])
        assert len(there) == 99


async def test_a_server_without_the_call_for_many_path_infos_gets_one_after_the_other() -> None:
    methods = await store_methods(granular=True)
    methods |= settings_methods(StoreSettings(SizeRule.DOCUMENTED, "/nix/store", PARTS_VERSION))
    del methods[bulk("PutPathInfos")]
    async with serve(methods) as url, await open_store(url) as store:
        assert store.granular is not None
        path_infos = await path_infos_in(store, 5)
        assert await asyncio.gather(*map(store.path_infos.put, path_infos)) == path_infos


async def test_a_server_whose_settings_tell_of_no_more_calls_gets_the_first_ones_only() -> None:
    methods = await store_methods(granular=True)
    methods |= settings_methods(StoreSettings(SizeRule.DOCUMENTED, "/nix/store"))
    methods = {path: method for path, method in methods.items() if "Bulk" not in path or path.endswith(("Many", "/Missing"))}
    async with serve(methods) as url, await open_store(url) as store:
        assert store.granular is None
        [digest] = await store.blobs.put_many([b"old"])
        assert await store.blobs.missing([digest, missing()]) == {missing()}
        assert await store.path_infos.existing([bytes(20)]) == {}


async def test_a_chunk_is_no_blob_to_a_server_of_chunks() -> None:
    """To snix, a chunk is known to ChunkStoreService alone."""
    methods = await store_methods(dialects=[SNIX], bulk=False, chunks=True)
    calls = {name: SNIX.blob(name) for name in ("Put", "Read", "Stat")}
    calls |= {name: f"/{BLOB_STORE_SERVICE}/{name}" for name in ("StatBlob", "GetBlob", "PutBlob")}
    calls |= {name: f"/{CHUNK_STORE_SERVICE}/{name}" for name in ("StatChunk", "GetChunk", "PutChunk")}
    sizes = watched(methods, *calls.values())

    def called() -> set[str]:
        made = {name for name, path in calls.items() if sizes[path]}
        for each in sizes.values():
            each.clear()
        return made

    async with serve(methods) as url, await open_store(url) as store:
        granular = store.granular
        assert granular is not None
        parts = [noise(300_000, "one"), noise(3_000_000, "large"), b"small"]
        called()
        chunks = await put(granular, [stored_chunk(part) for part in parts])
        assert called() == {"PutChunk"}
        assert await granular.missing_chunks([chunk.digest for chunk in chunks] + [missing()]) == {missing()}
        assert called() == {"StatChunk"}
        frames = [Frame(chunk.digest.raw, chunk.size, chunk.size) for chunk in chunks]
        assert [bytes(each.stored) for each in await granular.get_chunks(frames)] == parts
        assert called() == {"GetChunk"}
        whole = b"".join(parts)
        await granular.assemble(Digest.of(whole), chunks)
        assert called() == {"PutBlob"}
        assert await collect(store.blobs.read(Digest.of(whole))) == whole


async def test_a_list_that_is_longer_than_a_request_may_be_is_put_in_chunks_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grpc_granular, "_LISTED_CHUNK", 2000)
    monkeypatch.setattr(grpc_granular, "_AROUND_LIST", 0)
    async with await open_local(tmp_path / "store") as served:
        methods = await store_methods(store=served, granular=True)
        sizes = watched(methods, bulk("Assemble"), bulk("PutChunks"))
        async with serve(methods) as url, await open_store(url) as store:
            assert isinstance(store.granular, BulkGranular)
            parts = [noise(200, str(n)) for n in range(300)]
            whole = b"".join(parts)
            chunks = await put(store.granular, [stored_chunk(part) for part in parts])
            monkeypatch.setattr(store.granular._connection, "most_sent", 3000)
            sizes[bulk("PutChunks")].clear()
            await store.granular.assemble(Digest.of(whole), chunks)
            assert await collect(store.blobs.read(Digest.of(whole))) == whole
            assert max(sizes[bulk("Assemble")]) < 100
            assert len(sizes[bulk("PutChunks")]) == 6
