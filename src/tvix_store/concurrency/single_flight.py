"""SingleFlight: work by key, once for all who want the result at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


@dataclass(slots=True)
class _Running(Generic[T]):
    task: asyncio.Task[T]
    waiters: int = 0


class SingleFlight(Generic[K, T]):
    """Work by key, begun by `start`. The work is cancelled when nobody waits for it any more. Results are not kept."""

    def __init__(self, start: Callable[[K], asyncio.Task[T]]) -> None:
        self._start = start
        self._running: dict[K, _Running[T]] = {}

    async def result(self, key: K) -> T:
        """The result of the work for `key` that is under way, or else of new work.

        Raises:
            Exception: the error of the work. All who wait for it get it.
        """
        with self.joined(key) as task:
            return await asyncio.shield(task)

    @contextmanager
    def joined(self, key: K, start: Callable[[K], asyncio.Task[T]] | None = None) -> Iterator[asyncio.Task[T]]:
        """The work for `key` that is under way, or else new work, begun by `start` where that is given.

        To wait for it is to await `asyncio.shield(task)`.
        """
        running = self._running.get(key)
        if running is None:
            running = self._running[key] = _Running((start or self._start)(key))
        running.waiters += 1
        try:
            yield running.task
        finally:
            running.waiters -= 1
            if not running.waiters:
                running.task.cancel()
                del self._running[key]
