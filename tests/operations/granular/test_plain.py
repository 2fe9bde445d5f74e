"""PlainGranular keeps the contract, over a store that can assemble blobs, and over one that cannot."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tvix_store.backends.memory import open_store
from tvix_store.operations.granular.plain import PlainGranular, granular_of
from tvix_store.services.granular import Granular
from tvix_store.services.store import Store
from tvix_store.testing.contracts import GranularContract


class TestPlainGranular(GranularContract):
    @pytest.fixture
    async def store(self) -> AsyncIterator[Store]:
        async with await open_store() as store:
            yield store

    @pytest.fixture
    def granular(self, store: Store) -> Granular:
        return granular_of(store)


class TestPlainGranularWithoutAssembling(TestPlainGranular):
    @pytest.fixture
    def granular(self, store: Store) -> Granular:
        return PlainGranular(store.blobs, store.directories, None)
