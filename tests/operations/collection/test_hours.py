"""The time of a store."""

from __future__ import annotations

import pytest

from tests.operations.collection.paths import Collected
from tvix_store.backends.memory import open_store
from tvix_store.operations.collection.hours import DAILY, HOURLY, Hours


@pytest.mark.parametrize("most", [HOURLY, DAILY])
@pytest.mark.parametrize("hours", [1, 24, 48, 24 * 365 * 80, -1, -24 * 365 * 50])
async def test_a_look_lets_so_many_hours_pass_at_most(collected: Collected, most: int, hours: int) -> None:
    found = Hours(collected.records, lambda: collected.clock, most)
    before = await found.now()
    collected.clock += hours * 3600
    assert await found.now() - before == min(max(hours, 0), most), "what the next look would say"
    for _ in range(3):
        await found.look()
        assert await found.now() - before == min(max(hours, 0), most)


async def test_hours_begin_with_the_first_look() -> None:
    async with await open_store() as store:
        assert store.records is not None
        for clock in (0.0, 500_000 * 3600.0):
            hours = Hours(store.records, lambda clock=clock: clock)  # type: ignore[misc]
            assert not await hours.have_begun()
            assert await hours.now() == 24
            await hours.look()
            assert await hours.have_begun()
            assert await hours.now() == 24
            await store.records.delete([b"hours:"])
