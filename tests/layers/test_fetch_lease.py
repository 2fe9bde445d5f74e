"""One fetch of a path at a time, across machines."""

from __future__ import annotations

import asyncio

import pytest

from tvix_store.backends.memory.records import MemoryRecords
from tvix_store.errors import UnavailableError
from tvix_store.layers.fetch_lease import LEASE, FetchLease
from tvix_store.services.records import Changes
from tvix_store.testing.content import noise

PATH, OTHER = noise(20, "path"), noise(20, "other")


async def is_free(lease: FetchLease, output_hash: bytes = PATH) -> bool:
    try:
        async with asyncio.timeout(0.15), lease.holding(output_hash):
            return True
    except TimeoutError:
        return False


async def test_a_path_is_held_by_one_and_nothing_is_left() -> None:
    records = MemoryRecords()
    here, there = FetchLease(records), FetchLease(records)
    async with here.holding(PATH):
        assert not await is_free(there)
        assert await is_free(there, OTHER)
    assert await is_free(there)
    assert [each async for each in records.list()] == []


async def test_many_take_turns() -> None:
    records = MemoryRecords()
    inside: list[int] = []
    turns: list[int] = []

    async def fetch(number: int) -> None:
        async with FetchLease(records).holding(PATH):
            inside.append(number)
            await asyncio.sleep(0.001)
            assert inside == [number]
            inside.remove(number)
            turns.append(number)

    await asyncio.gather(*map(fetch, range(5)))
    assert sorted(turns) == list(range(5))


async def test_a_holder_that_is_gone_is_followed_by_another_and_one_at_work_is_not() -> None:
    records = MemoryRecords()
    await records.put({LEASE + PATH: b"of somebody who was killed"})
    async with asyncio.timeout(20), FetchLease(records, valid=0.1).holding(PATH):
        assert await records.get(LEASE + PATH) != b"of somebody who was killed"
        values = set()
        for _ in range(1000):
            await asyncio.sleep(0.01)
            values.add(await records.get(LEASE + PATH))
            if len(values) > 2:
                break
        assert len(values) > 2, "it is not renewed"
    assert await records.get(LEASE + PATH) is None


class Unreachable(MemoryRecords):
    """Records that cannot be reached any more."""

    away = False

    async def exchange(self, changes: Changes) -> int:
        if self.away:
            raise UnavailableError("away")
        return await super().exchange(changes)


async def test_a_fetch_ends_where_the_records_are_away() -> None:
    records = Unreachable()
    async with FetchLease(records, valid=0.03).holding(PATH):
        records.away = True
        await asyncio.sleep(0.05)
    with pytest.raises(UnavailableError):
        async with FetchLease(records).holding(OTHER):
            pass
