"""The layout of snix keeps the contract: in memory, in a directory, and on a real server of S3.

The contract as a whole takes half a minute on a server, and in a directory. There the whole of it runs where
TVIX_STORE_TEST_OBJECT_STORES is set, and otherwise the part that depends on conditional writes.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.backends.objectstore.versitygw import Versitygw
from tvix_store.config import open_store
from tvix_store.services.records import RecordService
from tvix_store.services.store import Store
from tvix_store.testing.contracts import (
    AssemblingContract,
    DeltasContract,
    KnownNarsContract,
    PathInfoServiceContract,
    RecordServiceContract,
    RemovalContract,
    StoreWithRecordsContract,
)


class _Records:
    @pytest.fixture
    def records(self, store: Store) -> RecordService:
        assert store.records is not None
        return store.records


class TestSnixLayoutInMemory(StoreWithRecordsContract, AssemblingContract, DeltasContract, KnownNarsContract, RemovalContract):
    @pytest.fixture
    async def store(self) -> AsyncIterator[Store]:
        async with await open_store("objectstore+memory:///?layout=snix") as store:
            yield store


if "TVIX_STORE_TEST_OBJECT_STORES" in os.environ:

    class _Contract(StoreWithRecordsContract, AssemblingContract, DeltasContract, KnownNarsContract, RemovalContract):
        pass

    _OnServer = _Contract
else:

    class _Contract(PathInfoServiceContract, _Records, RecordServiceContract, KnownNarsContract):  # type: ignore[no-redef]
        pass

    class _OnServer(PathInfoServiceContract):  # type: ignore[no-redef]
        pass


class TestSnixLayoutInADirectory(_Contract):
    @pytest.fixture
    async def store(self, memory_path: Path) -> AsyncIterator[Store]:
        async with await open_store(f"objectstore+file://{memory_path}/bucket?layout=snix") as store:
            yield store


class TestSnixLayoutOnAServer(_OnServer):
    @pytest.fixture
    async def store(self, s3: Versitygw) -> AsyncIterator[Store]:
        async with await open_store(s3.address(s3.new_bucket(), layout="snix")) as store:
            yield store
