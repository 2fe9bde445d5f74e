"""The local backend keeps the contract."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tvix_store.backends.local import open_store
from tvix_store.services.store import Store
from tvix_store.testing.contracts import PowersContract, StoreWithRecordsContract


class TestLocalStore(StoreWithRecordsContract, PowersContract):
    @pytest.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[Store]:
        async with await open_store(tmp_path / "store") as store:
            yield store


class TestLocalStoreWithoutThreads(StoreWithRecordsContract, PowersContract):
    @pytest.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[Store]:
        async with await open_store(tmp_path / "store", threads=0) as store:
            yield store


class TestLocalStoreOfSmallPacksAndChunks(StoreWithRecordsContract, PowersContract):
    @pytest.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[Store]:
        async with await open_store(tmp_path / "store", pack_size=1 << 20, chunk_average=4096) as store:
            yield store
