"""The packed layout of a bucket keeps the contract: in memory, in a directory, and on a real server of S3.

On the server, the whole contract runs where TVIX_STORE_TEST_OBJECT_STORES is set. Otherwise the part that writes most runs.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.backends.objectstore.packed.packed_stores import file_bucket, memory_bucket, open_packed
from tests.backends.objectstore.versitygw import Versitygw
from tvix_store.config import open_store
from tvix_store.services.store import Store
from tvix_store.testing.contracts import (
    AssemblingContract,
    DeltasContract,
    GranularContract,
    KnownNarsContract,
    RemovalContract,
    StagingContract,
    StoredFramesContract,
    StoreWithRecordsContract,
)


class _Whole(
    StoreWithRecordsContract,
    AssemblingContract,
    DeltasContract,
    GranularContract,
    KnownNarsContract,
    RemovalContract,
    StagingContract,
    StoredFramesContract,
):
    pass


if "TVIX_STORE_TEST_OBJECT_STORES" in os.environ:

    class _OnAServer(_Whole):
        pass
else:

    class _OnAServer(StagingContract):  # type: ignore[no-redef]
        pass


class TestPackedLayoutInMemory(_Whole):
    @pytest.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[Store]:
        async with await open_packed(memory_bucket(), tmp_path / "view") as store:
            yield store


class TestPackedLayoutInADirectoryInSmallPacks(StagingContract, StoredFramesContract):
    @pytest.fixture
    async def store(self, memory_path: Path) -> AsyncIterator[Store]:
        bucket = file_bucket(memory_path / "bucket")
        async with await open_packed(bucket, memory_path / "view", chunk_average=4096, pack_size=1 << 20) as store:
            yield store


class TestPackedLayoutOnAServer(_OnAServer):
    @pytest.fixture
    async def store(self, s3: Versitygw, tmp_path: Path) -> AsyncIterator[Store]:
        address = s3.address(s3.new_bucket(), layout="packed", view=str(tmp_path / "view"))
        async with await open_store(address) as store:
            yield store
