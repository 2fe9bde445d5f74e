"""A cache keeps the contracts of the store that it stands before."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tvix_store.backends.local import open_store as open_local
from tvix_store.backends.memory import open_store as open_memory
from tvix_store.layers.cache import DiskNear, MemoryNear, cached
from tvix_store.layers.cache.near import Near
from tvix_store.layers.composing import composed
from tvix_store.services.offer import Offer
from tvix_store.services.store import Store
from tvix_store.testing.contracts import AssemblingContract, PowersContract, StoreWithRecordsContract

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


class TestCacheOnDiskOfALocalStore(StoreWithRecordsContract, PowersContract):
    @pytest.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[Store]:
        async with before(DiskNear(tmp_path / "near", 100 * MIB), await open_local(tmp_path / "far")) as store:
            yield store


class TestCacheThatKeepsNothing(StoreWithRecordsContract):
    @pytest.fixture
    async def store(self) -> AsyncIterator[Store]:
        async with before(MemoryNear(0), await open_memory()) as store:
            yield store
