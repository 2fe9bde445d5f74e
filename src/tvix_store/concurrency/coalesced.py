"""Coalesced: many small questions, asked in few calls."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar, cast

from tvix_store.errors import StoreError, UnavailableError

K = TypeVar("K")
V = TypeVar("V")


def _one(_: object) -> int:
    return 1


@dataclass(slots=True, eq=False)
class _Question(Generic[K, V]):
    items: Sequence[K]
    weight: int
    answer: asyncio.Future[Sequence[V]]


class Coalesced(Generic[K, V]):
    """Hands items of many callers together to `call`, which answers one value for each, in order.

    A call takes items of at most `most` by `weigh`, or one that is heavier. `at_once` calls run at a time. What comes meanwhile
    waits, and shares the next call. A StoreError of a shared call may be the fault of one caller: then each has a call of its own.
    Not if there was no answer (UnavailableError): each call would wait as long.
    """

    def __init__(
        self,
        call: Callable[[Sequence[K]], Awaitable[Sequence[V]]],
        *,
        most: int,
        at_once: int = 4,
        weigh: Callable[[K], int] = _one,
    ) -> None:
        self._call = call
        self._most = most
        self._at_once = at_once
        self._weigh = weigh
        self._waiting: deque[_Question[K, V]] = deque()
        self._running: set[asyncio.Task[None]] = set()

    async def __call__(self, items: Sequence[K]) -> list[V]:
        """The answers for `items`, in order.

        Raises: what `call` raises.
        """
        questions = [self._asked(part, weight) for part, weight in self._parts(items)]
        try:
            if len(questions) == 1:  # nearly always; to gather takes as long as all the rest
                return list(await questions[0].answer)
            answers = await asyncio.gather(*(question.answer for question in questions))
        except BaseException:
            for question in questions:
                question.answer.cancel()
            raise
        return [value for answer in answers for value in answer]

    async def close(self) -> None:
        """End all calls, and what waits for them."""
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        while self._waiting:
            self._waiting.popleft().answer.cancel()

    def _asked(self, items: Sequence[K], weight: int) -> _Question[K, V]:
        question: _Question[K, V] = _Question(items, weight, asyncio.get_running_loop().create_future())
        self._waiting.append(question)
        if len(self._running) < self._at_once:
            task = asyncio.create_task(self._work())
            self._running.add(task)
            task.add_done_callback(self._running.discard)
        return question

    def _parts(self, items: Sequence[K]) -> list[tuple[Sequence[K], int]]:
        parts: list[tuple[Sequence[K], int]] = []
        begin = weight = 0
        for at, item in enumerate(items):
            its_weight = self._weigh(item)
            if at > begin and weight + its_weight > self._most:
                parts.append((items[begin:at], weight))
                begin, weight = at, 0
            weight += its_weight
        if begin < len(items):
            parts.append((items[begin:], weight))
        return parts

    async def _work(self) -> None:
        """Call for what waits, until nothing does. It begins when all who are ready to ask have asked."""
        await asyncio.sleep(0)
        while self._waiting:
            questions = [self._waiting.popleft()]
            weight = questions[0].weight
            while self._waiting and weight + self._waiting[0].weight <= self._most:
                questions.append(self._waiting.popleft())
                weight += questions[-1].weight
            await self._answer([question for question in questions if not question.answer.done()])
        # At once: who was just answered may ask again before this task is seen to be done, and nobody would answer that.
        self._running.discard(cast("asyncio.Task[None]", asyncio.current_task()))

    async def _answer(self, questions: list[_Question[K, V]]) -> None:
        if not questions:
            return
        items = questions[0].items if len(questions) == 1 else [item for question in questions for item in question.items]
        try:
            values = await self._call(items)
        except StoreError as error:
            if len(questions) == 1 or isinstance(error, UnavailableError):
                _fail(questions, error)
                return
            for question in questions:
                if not question.answer.done():
                    await self._answer([question])
            return
        except BaseException as error:
            _fail(questions, error)
            if not isinstance(error, Exception):
                raise
            return  # a fault of ours, which the callers tell; what waits gets its turn
        at = 0
        for question in questions:
            if not question.answer.done():
                question.answer.set_result(values[at : at + len(question.items)])
            at += len(question.items)


def _fail(questions: list[_Question[K, V]], error: BaseException) -> None:
    for question in questions:
        if not question.answer.done():
            if isinstance(error, asyncio.CancelledError):
                question.answer.cancel()
            else:
                question.answer.set_exception(error)
