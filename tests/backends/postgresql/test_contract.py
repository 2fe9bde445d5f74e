"""The PostgreSQL backend keeps the contracts, with blobs that stand elsewhere."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from itertools import count

import pytest

from tests.postgresql import Server
from tests.postgresql import server as shared
from tvix_store.backends import memory
from tvix_store.backends.postgresql import Settings, open_offer
from tvix_store.chunking import ChunkSizes
from tvix_store.layers.composing import composed
from tvix_store.services.store import Store
from tvix_store.testing.contracts import KnownNarsContract, RemovalContract, StoreWithRecordsContract
from tvix_store.testing.state_machine import StoreMachine


async def open_beside_memory(settings: Settings, sizes: ChunkSizes | None = None) -> Store:
    """A store with blobs in memory, and everything else in a database."""
    blobs = await (memory.open_store() if sizes is None else memory.open_store(sizes=sizes))
    offer = await open_offer(settings)
    return composed(blobs, offer, offer)


class TestPostgresStore(StoreWithRecordsContract, KnownNarsContract, RemovalContract):
    @pytest.fixture
    async def store(self, server: Server) -> AsyncIterator[Store]:
        async with await open_beside_memory(server.settings()) as store:
            yield store


class TestSerializable(RemovalContract):
    """As databases that are not PostgreSQL itself are used."""

    @pytest.fixture
    async def store(self, server: Server) -> AsyncIterator[Store]:
        async with await open_beside_memory(replace(server.settings(), isolation="serializable")) as store:
            yield store


class PostgresMachine(StoreMachine):
    """One connection to the server for each run of the machine."""

    _runs = count()

    async def open(self) -> Store:
        settings = replace(shared().settings(f"machine{next(self._runs)}"), pool=1)
        return await open_beside_memory(settings, ChunkSizes.of_average(16 * 1024))


TestPostgres = PostgresMachine.TestCase
