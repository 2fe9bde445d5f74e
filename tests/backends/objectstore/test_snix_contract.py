"""The layout of snix keeps the contract, in memory and in a directory."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tvix_store.config import open_store
from tvix_store.services.store import Store
from tvix_store.testing.contracts import AssemblingContract, DeltasContract, KnownNarsContract, StoreWithRecordsContract


class TestSnixLayoutInMemory(StoreWithRecordsContract, AssemblingContract, DeltasContract, KnownNarsContract):
    @pytest.fixture
    async def store(self) -> AsyncIterator[Store]:
        async with await open_store("objectstore+memory:///?layout=snix") as store:
            yield store


class TestSnixLayoutInADirectory(StoreWithRecordsContract, AssemblingContract, KnownNarsContract):
    @pytest.fixture
    async def store(self, memory_path: Path) -> AsyncIterator[Store]:
        async with await open_store(f"objectstore+file://{memory_path}/bucket?layout=snix") as store:
            yield store
