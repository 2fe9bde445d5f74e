"""The memory backend keeps the contract."""

from collections.abc import AsyncIterator

import pytest

from tvix_store.backends.memory import open_store
from tvix_store.chunking import ChunkSizes
from tvix_store.services.store import Store
from tvix_store.testing.contracts import (
    AssemblingContract,
    DeltasContract,
    KnownNarsContract,
    RemovalContract,
    StagingContract,
    StoreWithRecordsContract,
)
from tvix_store.testing.state_machine import StoreMachine


class TestMemoryStore(
    StoreWithRecordsContract, AssemblingContract, DeltasContract, KnownNarsContract, RemovalContract, StagingContract
):
    @pytest.fixture
    async def store(self) -> AsyncIterator[Store]:
        async with await open_store() as store:
            yield store


class TwoMemoryStores(StoreMachine):
    """The oracle against itself: tells that the machine is right."""

    async def open(self) -> Store:
        return await open_store(sizes=ChunkSizes.of_average(16 * 1024))


TestTwoMemoryStores = TwoMemoryStores.TestCase
