"""A store in memory, served for real on a port of its own, and a client of another make."""

from __future__ import annotations

from collections.abc import AsyncIterator

import grpc.aio
import pytest

from tests.rpc.client import Client
from tvix_store.backends.memory import open_store
from tvix_store.config import verified
from tvix_store.protocol.dialects import DIALECTS, Dialect
from tvix_store.rpc.services import serve_store
from tvix_store.server.listeners import listening, name
from tvix_store.server.serving import serving
from tvix_store.server.settings import ServerConfig
from tvix_store.services import Store


@pytest.fixture
async def store() -> AsyncIterator[Store]:
    async with verified(await open_store()) as store:
        yield store


@pytest.fixture
async def address(store: Store) -> AsyncIterator[str]:
    """Where `store` is served."""
    config = ServerConfig(listen=("127.0.0.1:0",), grace=1)
    app, health = serve_store(store)
    with listening(config.listen) as sockets:
        async with serving(app, sockets, config):
            yield name(sockets[0])
            health.stop()


@pytest.fixture(params=DIALECTS, ids=lambda dialect: dialect.name)
def dialect(request: pytest.FixtureRequest) -> Dialect:
    assert isinstance(request.param, Dialect)
    return request.param


@pytest.fixture
async def client(address: str) -> AsyncIterator[Client]:
    """A client compiled from our schema."""
    async with grpc.aio.insecure_channel(address) as channel:
        yield Client(channel)
