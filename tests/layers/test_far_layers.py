"""The layers before a store that is far, one over the other, keep the contracts of the store."""

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
from tvix_store.layers.observed import observed
from tvix_store.layers.retrying import retrying
from tvix_store.services.blobs import BlobService
from tvix_store.services.directories import DirectoryService
from tvix_store.services.offer import Offer
from tvix_store.services.store import Store
from tvix_store.testing.contracts import (
    BlobServiceContract,
    DirectoryServiceContract,
    GranularContract,
    StagingContract,
    StoredFramesContract,
    StoreWithRecordsContract,
)

MIB = 1 << 20


def before(near: Near, far: Offer) -> Store:
    """The store of all layers before `far`."""
    offer = observed(cached(near, retrying(observed(far, "far"))), "all")
    return composed(offer, offer, offer)


class TestLayersBeforeALocalStore(StoreWithRecordsContract, GranularContract, StagingContract, StoredFramesContract):
    """What was put is read from the disk of the cache."""

    @pytest.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[Store]:
        async with before(DiskNear(tmp_path / "near", 100 * MIB), await open_local(tmp_path / "far")) as store:
            yield store


class TestLayersThatKeepNothing(BlobServiceContract, DirectoryServiceContract):
    """Everything is read from far."""

    @pytest.fixture
    async def store(self) -> AsyncIterator[Store]:
        async with before(MemoryNear(0), await open_memory()) as store:
            yield store

    @pytest.fixture
    def blobs(self, store: Store) -> BlobService:
        return store.blobs

    @pytest.fixture
    def directories(self, store: Store) -> DirectoryService:
        return store.directories
