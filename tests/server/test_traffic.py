"""Budgets: who gets room, who waits, and who loses it."""

from __future__ import annotations

import asyncio

import pytest

from tvix_store.errors import ExhaustedError
from tvix_store.traffic import Budget, Client, LostPlaceError

A, B, C = ("10.0.0.1", 1), ("10.0.0.2", 2), ("10.0.0.3", 3)


class Holder:
    """Holds `size` bytes until `release`."""

    def __init__(self, budget: Budget, client: Client, size: int, *, kept: int = 0, idle: bool = True) -> None:
        self.has_it = asyncio.Event()
        self._release = asyncio.Event()
        self._idle = idle
        self.task = asyncio.create_task(self._run(budget, client, size, kept))

    async def _run(self, budget: Budget, client: Client, size: int, kept: int) -> None:
        with budget.place(client) as place:
            await place.hold(size, kept=kept)
            if self._idle:
                place.waits()
            self.has_it.set()
            await self._release.wait()

    async def release(self) -> None:
        self._release.set()
        await self.task


async def settled() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_room_is_held_until_the_end_whatever_happens() -> None:
    budget = Budget(100)

    async def work() -> None:
        with budget.place(A) as place:
            await place.hold(60)
            await place.hold(40)
            assert budget.held == 60
            place.hold_at_most(30)
            assert budget.held == 30
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await work()
    assert budget.held == 0


async def test_who_wants_more_than_there_is_gets_all_of_it() -> None:
    budget = Budget(100, share=100)
    with budget.place(A) as place:
        await place.hold(1000)
        assert budget.held == 100


async def test_connections_take_turns() -> None:
    budget = Budget(100, share=100)
    first = Holder(budget, A, 100)
    waiting = [Holder(budget, client, 100) for client in (A, A, A, B, C)]
    order: list[Holder] = []
    for holder in (first, *waiting):
        await settled()
        assert holder is first or not holder.has_it.is_set() or holder in order
    running = first
    while len(order) < 5:
        await running.release()
        await settled()
        [running] = [each for each in waiting if each.has_it.is_set() and each not in order]
        order.append(running)
    await running.release()
    assert [waiting.index(each) for each in order] == [0, 3, 4, 1, 2]
    assert budget.held == 0


async def test_a_connection_does_not_get_more_than_its_share_and_holds_up_nobody_else() -> None:
    budget = Budget(100, share=60)
    first = Holder(budget, A, 60)
    second = Holder(budget, A, 30)
    other = Holder(budget, B, 40)
    await settled()
    assert (first.has_it.is_set(), second.has_it.is_set(), other.has_it.is_set()) == (True, False, True)
    await first.release()
    await settled()
    assert second.has_it.is_set()
    await second.release()
    await other.release()


async def test_who_does_nothing_loses_the_place_to_who_waits_the_longest_idle_first() -> None:
    budget = Budget(100, share=100, spared=0.1)
    idle = Holder(budget, A, 50)
    await asyncio.sleep(0.05)
    later = Holder(budget, B, 30)
    busy = Holder(budget, C, 20, idle=False)
    await asyncio.sleep(1.2)
    assert not idle.task.done(), "nobody waited"
    with budget.place(A) as place:
        await asyncio.wait_for(place.hold(50), 10)
    with pytest.raises(LostPlaceError, match="the client did too little"):
        await idle.task
    assert not later.task.done()
    await later.release()
    await busy.release()
    assert budget.held == 0


async def test_who_does_nothing_for_very_long_loses_it_in_any_case() -> None:
    budget = Budget(100, stall=0.2, spared=0.1)
    idle, busy = Holder(budget, A, 10), Holder(budget, B, 10, idle=False)
    with pytest.raises(LostPlaceError):
        await asyncio.wait_for(idle.task, 10)
    await busy.release()


async def test_waiting_ends() -> None:
    budget = Budget(100, patience=0.1)
    holder = Holder(budget, A, 100)
    late = Holder(budget, B, 10)
    with pytest.raises(ExhaustedError, match="try again later"):
        await late.task
    await holder.release()
    assert budget.held == 0


async def test_what_waits_in_memory_is_bounded() -> None:
    budget = Budget(100)
    holder = Holder(budget, A, 100)
    await settled()
    waiting = [Holder(budget, B, 10, kept=10) for _ in range(2)]
    refused = Holder(budget, B, 10, kept=10)
    with pytest.raises(ExhaustedError, match="in some seconds"):
        await refused.task
    await holder.release()
    for each in waiting:
        await each.release()


async def test_who_is_cancelled_while_waiting_leaves_nothing() -> None:
    budget = Budget(100)
    holder = Holder(budget, A, 100)
    waiting = Holder(budget, B, 10)
    await settled()
    waiting.task.cancel()
    await holder.release()
    with pytest.raises(asyncio.CancelledError):
        await waiting.task
    assert budget.held == 0
    with budget.place(C) as place:
        await asyncio.wait_for(place.hold(100), 5)
