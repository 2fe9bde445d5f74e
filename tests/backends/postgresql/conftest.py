"""A real PostgreSQL for the tests of its backend."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import asyncpg  # type: ignore[import-untyped] # it ships no types
import pytest

from tests.postgresql import Server
from tests.postgresql import server as shared
from tvix_store.backends.postgresql import Settings, driver, open_offer
from tvix_store.services.offer import Offer


@pytest.fixture
def server() -> Server:
    """The server of this process. A test that stops it starts it again."""
    return shared()


@pytest.fixture
def settings(server: Server) -> Settings:
    """Of a schema that is not there yet."""
    return server.settings()


@pytest.fixture
async def offer(settings: Settings) -> AsyncIterator[Offer]:
    """An empty store in that schema."""
    offer = await open_offer(settings)
    yield offer
    await offer.close()


@pytest.fixture
async def sql(settings: Settings) -> AsyncIterator[Any]:
    """A connection of another client, in that schema."""
    connection = await asyncpg.connect(settings.dsn, server_settings={"search_path": settings.schema})
    yield connection
    await connection.close()


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every statement that goes to the server, over connections that are made from now on."""
    statements: list[str] = []
    prepare: Callable[[Any], Any] = driver.prepare

    async def prepare_and_listen(connection: Any) -> None:
        await prepare(connection)
        connection.add_query_logger(lambda record: statements.append(record.query.strip()))

    monkeypatch.setattr(driver, "prepare", prepare_and_listen)
    return statements


async def blocked(sql: Any, count: int = 1) -> None:
    """Wait until so many statements of others wait for a lock."""
    for _ in range(3000):
        if await sql.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted") >= count:
            return
        await asyncio.sleep(0.01)
    raise TimeoutError


async def settled() -> None:
    """Let the driver tell of its last statement."""
    await asyncio.sleep(0)
