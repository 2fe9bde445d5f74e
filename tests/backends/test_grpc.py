"""The gRPC client keeps the contract, in every dialect, with and without calls for many blobs at once."""

from collections.abc import AsyncIterator

import pytest

from tests.backends.grpc_servers import serve, store_methods
from tvix_store.backends.grpc import open_store
from tvix_store.protocol.dialects import DIALECTS, SNIX, Dialect
from tvix_store.services.blobs import BlobService
from tvix_store.services.store import Store
from tvix_store.testing.contracts import BlobServiceContract, StoreContract


@pytest.fixture(params=DIALECTS, ids=lambda dialect: dialect.name)
def dialect(request: pytest.FixtureRequest) -> Dialect:
    assert isinstance(request.param, Dialect)
    return request.param


class TestServerWithBulkService(StoreContract):
    @pytest.fixture
    async def store(self, dialect: Dialect) -> AsyncIterator[Store]:
        async with serve(await store_methods()) as url, await open_store(f"{url}?dialect={dialect.name}") as store:
            yield store


class TestServerOfOneDialect(StoreContract):
    @pytest.fixture
    async def store(self, dialect: Dialect) -> AsyncIterator[Store]:
        async with serve(await store_methods(dialects=[dialect], bulk=False)) as url, await open_store(url) as store:
            yield store


class TestServerOfChunks(StoreContract):
    """As snix may be one day: without BlobService."""

    @pytest.fixture
    async def store(self) -> AsyncIterator[Store]:
        methods = await store_methods(dialects=[SNIX], bulk=False, chunks=True, whole_blobs=False)
        async with serve(methods) as url, await open_store(url) as store:
            yield store


class TestServerOfBlobsAndChunks(BlobServiceContract):
    """As snix is since 2026."""

    @pytest.fixture
    async def blobs(self) -> AsyncIterator[BlobService]:
        methods = await store_methods(dialects=[SNIX], bulk=False, chunks=True)
        async with serve(methods) as url, await open_store(url) as store:
            yield store.blobs
