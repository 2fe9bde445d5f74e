"""The packed layout of a bucket keeps the contract."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.backends.packed.packed_stores import file_bucket, memory_bucket, open_packed
from tvix_store.services.store import Store
from tvix_store.testing.contracts import (
    AssemblingContract,
    DeltasContract,
    GranularContract,
    KnownNarsContract,
    StagingContract,
    StoredFramesContract,
    StoreWithRecordsContract,
)


class PowersOfContent(
    AssemblingContract, DeltasContract, GranularContract, KnownNarsContract, StagingContract, StoredFramesContract
):
    """That of the powers of a store whose path infos stand elsewhere."""


class TestPackedStore(StoreWithRecordsContract, PowersOfContent):
    @pytest.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[Store]:
        async with await open_packed(memory_bucket(), tmp_path / "view") as store:
            yield store


class TestPackedStoreOfFilesInSmallPacks(StagingContract, StoredFramesContract, GranularContract):
    @pytest.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[Store]:
        bucket = file_bucket(tmp_path / "bucket")
        async with await open_packed(bucket, tmp_path / "view", chunk_average=4096, pack_size=1 << 20) as store:
            yield store
