"""The gRPC client keeps the contract, in each dialect, with and without calls for many blobs at once."""

from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.backends.grpc_servers import serve, store_methods
from tvix_store.backends.grpc import open_store, path_infos
from tvix_store.backends.local import open_store as open_local
from tvix_store.chunking import DEFAULT_SIZES
from tvix_store.errors import UnsupportedError
from tvix_store.protocol.dialects import CHUNK_STORE_SERVICE, DIALECTS, SEED, SNIX, Dialect
from tvix_store.rpc.method import Answer, Call, Streaming
from tvix_store.services.blobs import BlobService
from tvix_store.services.store import Store
from tvix_store.testing.content import collect, noise, stream
from tvix_store.testing.contracts import BlobServiceContract, LoneFilesContract, StatisticsContract, StoreContract
from tvix_store.testing.contracts.path_infos import stored_file


class TestServerWithBulkService(StoreContract, LoneFilesContract):
    """In the dialect that the client takes by itself: our BulkService is the same beside all of them."""

    @pytest.fixture
    async def store(self) -> AsyncIterator[Store]:
        async with serve(await store_methods()) as url, await open_store(url) as store:
            yield store


@pytest.mark.usefixtures("protocol")
@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)
@pytest.mark.parametrize("bulk", [True, False])
async def test_each_service_is_called_in_the_dialect_that_the_client_is_told(dialect: Dialect, bulk: bool) -> None:
    """The server says that it speaks all of them, and answers calls in this one alone."""
    others = {service for each in DIALECTS for service in each.services}.difference(dialect.services)
    methods = {path: method for path, method in (await store_methods(bulk=bulk)).items() if path.split("/")[1] not in others}
    async with serve(methods) as url, await open_store(f"{url}?dialect={dialect.name}") as store:
        await StoreContract().test_a_file_is_reached_from_its_store_path(store)


class TestServerThatCounts(StatisticsContract):
    @pytest.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[Store]:
        async with (
            await open_local(tmp_path / "store") as local,
            serve(await store_methods(store=local)) as url,
            await open_store(url) as store,
        ):
            yield store


class TestServerOfOneDialect(StoreContract):
    """That of tvix has other names than that of snix, and no other difference."""

    many = 300

    @pytest.fixture(params=[SEED, SNIX], ids=lambda dialect: dialect.name)
    def dialect(self, request: pytest.FixtureRequest) -> Dialect:
        assert isinstance(request.param, Dialect)
        return request.param

    @pytest.fixture
    async def store(self, dialect: Dialect) -> AsyncIterator[Store]:
        async with serve(await store_methods(dialects=[dialect], bulk=False)) as url, await open_store(url) as store:
            yield store


class TestServerOfChunks(StoreContract):
    """As snix may be one day: without BlobService."""

    many = 300

    @pytest.fixture
    async def store(self) -> AsyncIterator[Store]:
        methods = await store_methods(dialects=[SNIX], bulk=False, chunks=True, whole_blobs=False)
        async with serve(methods) as url, await open_store(url) as store:
            yield store


async def test_a_blob_of_one_message_is_cut_for_a_server_of_chunks() -> None:
    methods = await store_methods(dialects=[SNIX], bulk=False, chunks=True, whole_blobs=False)
    put_chunk = methods[f"/{CHUNK_STORE_SERVICE}/PutChunk"]
    assert isinstance(put_chunk, Streaming)
    sizes: list[int] = []

    async def counted(messages: AsyncIterator[bytes], call: Call) -> AsyncGenerator[Answer, None]:
        received = [message async for message in messages]
        sizes.append(sum(map(len, received)))
        async for answer in put_chunk.handle(stream(received), call):
            yield answer

    methods[f"/{CHUNK_STORE_SERVICE}/PutChunk"] = replace(put_chunk, handle=counted)
    async with serve(methods) as url, await open_store(url) as store:
        content = noise(1_000_000, "cut")
        digest = await store.blobs.put(stream([content]))
        assert await collect(store.blobs.read(digest)) == content
        assert max(sizes) < DEFAULT_SIZES.maximum + 100
        [small] = await store.blobs.put_many([b"small"])
        assert await collect(store.blobs.read(small)) == b"small"


class TestServerOfBlobsAndChunks(BlobServiceContract):
    """As snix is since 2026."""

    many = 300

    @pytest.fixture
    async def blobs(self) -> AsyncIterator[BlobService]:
        methods = await store_methods(dialects=[SNIX], bulk=False, chunks=True)
        async with serve(methods) as url, await open_store(url) as store:
            yield store.blobs


async def test_a_list_from_far_behind_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(path_infos, "MOST_FOR_NOTHING", 3)
    async with serve(await store_methods()) as url, await open_store(url) as store:
        infos = [await stored_file(store, f"listed-{n}") for n in range(6)]
        for info in infos:
            await store.path_infos.put(info)
        infos.sort(key=lambda each: each.store_path.output_hash)
        assert [each async for each in store.path_infos.list(infos[2].store_path.output_hash)] == infos[3:]
        with pytest.raises(UnsupportedError, match="more than 3 come before the ones that are asked for"):
            [each async for each in store.path_infos.list(infos[3].store_path.output_hash)]
