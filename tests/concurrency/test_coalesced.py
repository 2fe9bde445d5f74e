"""Coalesced: who asks at the same time shares calls."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from tvix_store.concurrency.coalesced import Coalesced
from tvix_store.errors import InvalidError, UnavailableError


async def test_questions_of_the_same_time_share_a_call_up_to_its_bound() -> None:
    calls: list[list[int]] = []

    async def double(items: Sequence[int]) -> list[int]:
        calls.append(list(items))
        await asyncio.sleep(0)
        return [2 * item for item in items]

    ask = Coalesced(double, most=10, at_once=2)
    answers = await asyncio.gather(*(ask([n, n + 1]) for n in range(50)), ask([]), ask(list(range(35))))
    assert answers == [*([2 * n, 2 * n + 2] for n in range(50)), [], [2 * n for n in range(35)]]
    assert max(map(len, calls)) == 10
    assert len(calls) < 20


async def test_items_have_weights() -> None:
    calls: list[list[int]] = []

    async def same(items: Sequence[int]) -> Sequence[int]:
        calls.append(list(items))
        return items

    ask = Coalesced(same, most=10, at_once=1, weigh=lambda item: item)
    assert await ask([4, 6, 5, 5, 1, 99, 1]) == [4, 6, 5, 5, 1, 99, 1]
    assert calls == [[4, 6], [5, 5], [1], [99], [1]]


async def test_no_more_calls_run_than_may() -> None:
    running = most = 0

    async def slow(items: Sequence[int]) -> Sequence[int]:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.001)
        running -= 1
        return items

    ask = Coalesced(slow, most=1, at_once=3)
    assert await ask(list(range(20))) == list(range(20))
    assert most == 3


async def test_an_error_is_told_to_who_is_guilty() -> None:
    async def refuse_odd(items: Sequence[int]) -> Sequence[int]:
        if any(item % 2 for item in items):
            raise InvalidError("odd")
        return items

    ask = Coalesced(refuse_odd, most=100)
    answers = await asyncio.gather(*(ask([n]) for n in range(6)), return_exceptions=True)
    assert [each if isinstance(each, list) else str(each) for each in answers] == [[0], "odd", [2], "odd", [4], "odd"]


async def test_another_error_is_told_to_all_of_the_call() -> None:
    async def broken(items: Sequence[int]) -> Sequence[int]:
        raise ZeroDivisionError

    ask = Coalesced(broken, most=100)
    answers = await asyncio.gather(ask([1]), ask([2]), return_exceptions=True)
    assert [type(each) for each in answers] == [ZeroDivisionError] * 2
    with pytest.raises(ZeroDivisionError):
        await ask([3])


async def test_who_stops_waiting_holds_nobody_up() -> None:
    gate = asyncio.Event()
    calls: list[list[int]] = []

    async def gated(items: Sequence[int]) -> Sequence[int]:
        calls.append(list(items))
        await gate.wait()
        return items

    ask = Coalesced(gated, most=1, at_once=1)
    first, second, third = (asyncio.create_task(ask([n])) for n in range(3))
    await asyncio.sleep(0.01)
    second.cancel()
    gate.set()
    assert await first == [0]
    assert await third == [2]
    assert calls == [[0], [2]]
    await ask.close()


async def test_close_ends_what_runs() -> None:
    async def never(items: Sequence[int]) -> Sequence[int]:
        await asyncio.Event().wait()
        return items

    ask = Coalesced(never, most=1)
    waiting = asyncio.create_task(ask([1]))
    await asyncio.sleep(0.01)
    await ask.close()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_a_call_without_an_answer_is_not_repeated_for_each() -> None:
    calls: list[list[int]] = []

    async def silent(items: Sequence[int]) -> Sequence[int]:
        calls.append(list(items))
        raise UnavailableError("no answer")

    ask = Coalesced(silent, most=100)
    answers = await asyncio.gather(*(ask([n]) for n in range(6)), return_exceptions=True)
    assert {str(each) for each in answers} == {"no answer"}
    assert calls == [[0, 1, 2, 3, 4, 5]]


async def test_what_waits_is_asked_though_a_call_before_it_is_broken() -> None:
    async def broken(items: Sequence[int]) -> Sequence[int]:
        if items[0] == 0:
            raise ZeroDivisionError
        return items

    ask = Coalesced(broken, most=1, at_once=1)
    async with asyncio.timeout(5):
        answers = await asyncio.gather(ask([0]), ask([1]), return_exceptions=True)
    assert isinstance(answers[0], ZeroDivisionError)
    assert answers[1] == [1]


async def test_close_ends_what_waits_too() -> None:
    async def never(items: Sequence[int]) -> Sequence[int]:
        await asyncio.Event().wait()
        return items

    ask = Coalesced(never, most=1, at_once=1)
    waiting = [asyncio.create_task(ask([n])) for n in range(3)]
    await asyncio.sleep(0.01)
    await ask.close()
    async with asyncio.timeout(5):
        assert [type(each) for each in await asyncio.gather(*waiting, return_exceptions=True)] == [asyncio.CancelledError] * 3


async def test_who_asks_again_at_once_is_answered() -> None:
    async def same(items: Sequence[int]) -> Sequence[int]:
        return items

    ask = Coalesced(same, most=1, at_once=1)
    async with asyncio.timeout(5):
        assert [await ask([n]) for n in range(3)] == [[0], [1], [2]]
        assert await asyncio.gather(*(ask([n, n]) for n in range(3))) == [[n, n] for n in range(3)]
