"""SingleFlight: work by key, once for all who want the result at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
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
        running = self._running.get(key)
        if running is None:
            running = self._running[key] = _Running(self._start(key))
        running.waiters += 1
        try:
            return await asyncio.shield(running.task)
        finally:
            running.waiters -= 1
            if not running.waiters:
                running.task.cancel()
                del self._running[key]
