"""SingleFlight: who asks for what is being worked on already gets the result of that."""

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
    """Work by key, begun by `start`. It is called off when nobody waits for it any more; nothing is kept of what has ended."""

    def __init__(self, start: Callable[[K], asyncio.Task[T]]) -> None:
        self._start = start
        self._running: dict[K, _Running[T]] = {}

    async def result(self, key: K) -> T:
        """The result of the work that is under way, or of new one.

        Raises:
            Exception: what the work has raised; everybody who waits gets it.
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
