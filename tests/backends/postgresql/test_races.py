"""Several processes at one database."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.backends.postgresql.conftest import blocked
from tests.backends.postgresql.peer import PATHS, ROUNDS, path_info
from tvix_store.backends.postgresql import Settings, open_offer
from tvix_store.errors import IncompleteError
from tvix_store.services.offer import Offer
from tvix_store.testing.contracts.path_infos import signature

TIMES = int(os.environ.get("TVIX_STORE_TEST_RACES", "10"))
"""Races of a put with a removal."""
PEERS = ("one", "two")


async def test_processes_at_once_make_one_store_and_lose_nothing(settings: Settings) -> None:
    peer = str(Path(__file__).parent / "peer.py")
    running = [await asyncio.create_subprocess_exec(sys.executable, peer, settings.dsn, settings.schema, name) for name in PEERS]
    assert [await each.wait() for each in running] == [0] * len(PEERS)
    offer = await open_offer(settings, create=False)
    assert offer.path_infos is not None
    assert offer.records is not None
    infos = {each.store_path.name: each async for each in offer.path_infos.list()}
    signatures = {signature(f"{name}-{number}") for name in PEERS for number in range(ROUNDS)}
    for n in range(PATHS):
        assert set(infos[f"signed-{n}"].signatures) == signatures
    lacking = {each.name for info in infos.values() for each in info.references} - infos.keys()
    assert not lacking, "a path stays while another one refers to it"
    values = {value async for _, value in offer.records.list(b"test:")}
    assert len(values) == 1, "all of a put of records, or nothing"
    await offer.close()


async def test_many_make_the_tables_at_once(settings: Settings, sql: Any) -> None:
    offers = await asyncio.gather(*(open_offer(settings) for _ in range(8)))
    assert await sql.fetchval("SELECT count(*) FROM store") == 1
    for offer in offers:
        await offer.close()


@pytest.fixture(params=["read committed", "serializable"])
def isolation(request: pytest.FixtureRequest) -> str:
    """The levels of isolation of PostgreSQL, and of other databases. All clients of a store have the same."""
    return str(request.param)


@pytest.fixture
async def two(isolation: str, settings: Settings) -> AsyncIterator[tuple[Offer, Offer]]:
    """The same store twice."""
    settings = replace(settings, isolation=isolation)
    one, other = await open_offer(settings), await open_offer(settings)
    yield one, other
    await one.close()
    await other.close()


async def test_a_put_and_the_removal_of_what_it_requires_do_not_both_succeed(two: tuple[Offer, Offer]) -> None:
    putting, removal = two[0].path_infos, two[1].removal
    assert putting is not None
    assert removal is not None
    outcomes = set()
    for number in range(TIMES):
        low, high = path_info(f"low-{number}"), path_info(f"high-{number}", f"low-{number}")
        await putting.put(low)

        async def put(high: Any = high, low: Any = low) -> bool:
            try:
                await putting.put(high, requires=[low.store_path])
            except IncompleteError:
                return False
            return True

        is_put, gone = await asyncio.gather(put(), removal.remove([low.store_path.output_hash], unused_since=None))
        assert is_put != bool(gone)
        outcomes.add(is_put)
    assert outcomes


async def test_a_removal_finds_a_put_under_way(two: tuple[Offer, Offer], isolation: str, sql: Any) -> None:
    """As above, with the two where they must not miss each other: the put has looked, and is not committed."""
    path_infos, removal = two[0].path_infos, two[1].removal
    assert path_infos is not None
    assert removal is not None
    low, high = path_info("low"), path_info("high", "low")
    await path_infos.put(low)
    await path_infos.put(high)
    own = high.store_path.output_hash
    rows = await sql.fetch("SELECT * FROM path_infos WHERE output_hash = $1", own)
    await sql.execute("DELETE FROM path_infos WHERE output_hash = $1", own)
    await sql.execute("DELETE FROM path_references")
    async with sql.transaction(isolation=isolation.replace(" ", "_")):
        await sql.execute("SELECT 1 FROM path_infos WHERE output_hash = $1 FOR KEY SHARE", low.store_path.output_hash)
        removing = asyncio.create_task(removal.remove([low.store_path.output_hash], unused_since=None))
        await blocked(sql)
        await sql.execute("INSERT INTO path_infos VALUES ($1, $2, $3, $4, $5, $6)", *rows[0])
        await sql.execute("INSERT INTO path_references VALUES ($1, $2)", low.store_path.output_hash, own)
    assert await removing == set()
    assert await path_infos.get(low.store_path.output_hash) == low


async def test_a_put_waits_for_the_removal_of_what_it_requires(two: tuple[Offer, Offer], isolation: str, sql: Any) -> None:
    path_infos = two[0].path_infos
    assert path_infos is not None
    low, high = path_info("low"), path_info("high", "low")
    await path_infos.put(low)
    async with sql.transaction(isolation=isolation.replace(" ", "_")):
        await sql.execute("SELECT 1 FROM path_infos WHERE output_hash = $1 FOR UPDATE", low.store_path.output_hash)
        puts = [asyncio.create_task(path_infos.put(each, requires=each.references)) for each in (high, low)]
        await blocked(sql, 2)  # the second, too: it would change nothing, and be acknowledged
        await sql.execute("DELETE FROM path_infos WHERE output_hash = $1", low.store_path.output_hash)
    is_put, stored = await asyncio.gather(*puts, return_exceptions=True)
    assert isinstance(is_put, IncompleteError) or is_put == high, "the other put may come first"
    assert stored == low
    assert await path_infos.get(low.store_path.output_hash) == low
