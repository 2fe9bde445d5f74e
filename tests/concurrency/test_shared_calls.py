"""SharedCalls: each key is under way once, and callers do not suffer from each other."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

import pytest

from tvix_store.concurrency.shared_calls import SharedCalls
from tvix_store.errors import NotFoundError


class Doubling:
    """Doubles numbers, after a while, and remembers the calls. Negative ones are not found."""

    def __init__(self) -> None:
        self.calls: list[list[int]] = []
        self.cancelled = 0
        self.shared = SharedCalls(self.double)

    async def double(self, numbers: Sequence[int]) -> list[int]:
        self.calls.append(list(numbers))
        try:
            await asyncio.sleep(0.001)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        for number in numbers:
            if number < 0:
                raise NotFoundError("number", number)
        return [2 * number for number in numbers]


async def test_a_key_is_under_way_once() -> None:
    doubling = Doubling()
    results = await asyncio.gather(*(doubling.shared([n, n + 1, n]) for n in range(10)))
    assert results == [[2 * n, 2 * n + 2, 2 * n] for n in range(10)]
    assert sorted(number for call in doubling.calls for number in call) == list(range(11))
    assert await doubling.shared([]) == []
    assert await doubling.shared([3]) == [6]
    assert doubling.calls[-1] == [3]


async def test_the_fault_of_another_key_is_not_shared() -> None:
    doubling = Doubling()
    bad, good = await asyncio.gather(doubling.shared([1, -1]), doubling.shared([1, 2]), return_exceptions=True)
    assert isinstance(bad, NotFoundError)
    assert good == [2, 4]


async def test_a_call_ends_when_nobody_waits_and_who_comes_then_has_a_new_one() -> None:
    doubling = Doubling()
    first = asyncio.create_task(doubling.shared([1, 2]))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.sleep(0)
    assert await doubling.shared([2, 1]) == [4, 2]
    with pytest.raises(asyncio.CancelledError):
        await first
    assert (len(doubling.calls), doubling.cancelled) == (2, 1)


async def test_callers_may_go_away_at_any_moment() -> None:
    doubling = Doubling()
    chosen = random.Random(3)

    async def ask() -> None:
        numbers = [chosen.randrange(20) for _ in range(5)]
        task = asyncio.create_task(doubling.shared(numbers))
        if chosen.random() < 0.5:
            await asyncio.sleep(chosen.random() / 300)
            task.cancel()
            await asyncio.wait([task])
        else:
            assert await task == [2 * number for number in numbers]

    for _ in range(10):
        await asyncio.gather(*(ask() for _ in range(30)))
    assert not doubling.shared._running
