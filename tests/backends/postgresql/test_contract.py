"""The PostgreSQL backend keeps the contracts, with blobs that stand elsewhere."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from hypothesis import settings

from tests.postgresql import emptied
from tvix_store.backends import memory
from tvix_store.backends.postgresql import Settings, open_offer
from tvix_store.chunking import ChunkSizes
from tvix_store.layers.composing import composed
from tvix_store.services.directories import DirectoryService
from tvix_store.services.records import RecordService
from tvix_store.services.store import Store
from tvix_store.testing.contracts import (
    DirectoryServiceContract,
    PathInfoServiceContract,
    RecordServiceContract,
    RemovalContract,
)
from tvix_store.testing.state_machine import StoreMachine

RUNS = int(os.environ.get("TVIX_STORE_TEST_RUNS", "5"))
"""Runs of the machine. Each makes tables; they find more together than one that is longer."""


async def open_beside_memory(settings: Settings, sizes: ChunkSizes | None = None) -> Store:
    """A store with blobs in memory, and everything else in a database."""
    blobs = await (memory.open_store() if sizes is None else memory.open_store(sizes=sizes))
    offer = await open_offer(settings)
    return composed(blobs, offer, offer)


class TestPostgresStore(DirectoryServiceContract, PathInfoServiceContract, RecordServiceContract, RemovalContract):
    """All but blobs, and the NARs of these."""

    @pytest.fixture
    async def store(self) -> AsyncIterator[Store]:
        async with await open_beside_memory(await emptied("contract")) as store:
            yield store

    @pytest.fixture
    def directories(self, store: Store) -> DirectoryService:
        return store.directories

    @pytest.fixture
    def records(self, store: Store) -> RecordService:
        assert store.records is not None
        return store.records


class TestSerializable(RemovalContract):
    """As databases that are not PostgreSQL itself are used."""

    @pytest.fixture
    async def store(self) -> AsyncIterator[Store]:
        async with await open_beside_memory(replace(await emptied("contract"), isolation="serializable")) as store:
            yield store


class PostgresMachine(StoreMachine):
    """One connection to the server for each run of the machine."""

    async def open(self) -> Store:
        one = replace(await emptied("machine"), pool=1)
        return await open_beside_memory(one, ChunkSizes.of_average(16 * 1024))


TestPostgres = PostgresMachine.TestCase
TestPostgres.settings = settings(max_examples=RUNS, stateful_step_count=20)
