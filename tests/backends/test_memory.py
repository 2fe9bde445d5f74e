"""The memory backend keeps the contract."""

from collections.abc import AsyncIterator

import pytest

from tvix_store.backends.memory import open_store
from tvix_store.services.store import Store
from tvix_store.testing.contracts import StoreContract


class TestMemoryStore(StoreContract):
    @pytest.fixture
    async def store(self) -> AsyncIterator[Store]:
        async with await open_store() as store:
            yield store
