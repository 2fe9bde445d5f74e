"""A cache keeps the contracts of the store that it stands before."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tvix_store.backends.local import open_store as open_local
from tvix_store.backends.memory import open_store as open_memory
from tvix_store.layers.cache.cached import cached
from tvix_store.layers.cache.disk_near import DiskNear
from tvix_store.layers.cache.memory_near import MemoryNear
from tvix_store.layers.cache.near import Near
from tvix_store.layers.composing import composed
from tvix_store.services.blobs import BlobService
from tvix_store.services.directories import DirectoryService
from tvix_store.services.offer import Offer
from tvix_store.services.store import Store
from tvix_store.testing.contracts import (
    AssemblingContract,
    BlobServiceContract,
    DirectoryServiceContract,
    GranularContract,
    RemovalContract,
    StagingContract,
    StoredFramesContract,
    StoreWithRecordsContract,
)

MIB = 1 << 20


def before(near: Near, far: Offer) -> Store:
    """The store of a cache before `far`."""
    offer = cached(near, far)
    return composed(offer, offer, offer)


class TestCacheInMemory(StoreWithRecordsContract, AssemblingContract):
    @pytest.fixture
    async def store(self) -> AsyncIterator[Store]:
        async with before(MemoryNear(100 * MIB), await open_memory()) as store:
            yield store


class TestPowersOfACacheOnDisk(DirectoryServiceContract, GranularContract, StagingContract, StoredFramesContract, RemovalContract):
    @pytest.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[Store]:
        async with before(DiskNear(tmp_path / "near", 100 * MIB), await open_local(tmp_path / "far")) as store:
            yield store

    @pytest.fixture
    def directories(self, store: Store) -> DirectoryService:
        return store.directories


class TestCacheThatKeepsNothing(BlobServiceContract, DirectoryServiceContract):
    """Everything is read from far."""

    @pytest.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[Store]:
        async with before(MemoryNear(0), await open_local(tmp_path / "far")) as store:
            yield store

    @pytest.fixture
    def blobs(self, store: Store) -> BlobService:
        return store.blobs

    @pytest.fixture
    def directories(self, store: Store) -> DirectoryService:
        return store.directories
