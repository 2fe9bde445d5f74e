"""The client keeps the contract over plain HTTP too, with and without calls for many blobs at once.

Messages are the same as over gRPC. So one dialect stands for all; that each is spoken is in test_grpc.py, over both.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest

from tests.backends.grpc_servers import serve, store_methods
from tvix_store.backends.grpc import open_store
from tvix_store.backends.local import open_store as open_local
from tvix_store.protocol.dialects import SEED, SNIX
from tvix_store.services.blobs import BlobService
from tvix_store.services.store import Store
from tvix_store.testing.contracts import BlobServiceContract, StatisticsContract, StoreContract

serve_http = partial(serve, protocol="connect")


class TestServerOfOurs(StoreContract):
    """As our daemon is: with everything."""

    @pytest.fixture
    async def store(self) -> AsyncIterator[Store]:
        async with serve_http(await store_methods(chunks=True)) as url, await open_store(url) as store:
            yield store


class TestServerOfOneDialect(StoreContract):
    """In the one whose small blobs are calls of one message."""

    many = 300

    @pytest.fixture
    async def store(self) -> AsyncIterator[Store]:
        methods = await store_methods(dialects=[SEED], bulk=False, reflection=False)
        async with serve_http(methods) as url, await open_store(url) as store:
            yield store


class TestServerOfChunks(BlobServiceContract):
    many = 300

    @pytest.fixture
    async def blobs(self) -> AsyncIterator[BlobService]:
        methods = await store_methods(dialects=[SNIX], bulk=False, chunks=True, whole_blobs=False)
        async with serve_http(methods) as url, await open_store(url) as store:
            yield store.blobs


class TestServerThatCounts(StatisticsContract):
    @pytest.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[Store]:
        async with (
            await open_local(tmp_path / "store") as local,
            serve_http(await store_methods(store=local, chunks=True)) as url,
            await open_store(url) as store,
        ):
            yield store
