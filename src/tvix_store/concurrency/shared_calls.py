"""SharedCalls: calls for many keys at a time, where each key is under way once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from tvix_store.errors import StoreError

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


@dataclass(slots=True, eq=False)
class _Running(Generic[K, V]):
    keys: Sequence[K]
    task: asyncio.Task[dict[K, V]]
    waiters: int = 0


class SharedCalls(Generic[K, V]):
    """Gets the values of keys by `call`, which answers one for each, in order. A key that another caller waits for is not called
    for again.

    A call is cancelled when nobody waits for it any more. Results are not kept.
    """

    def __init__(self, call: Callable[[Sequence[K]], Awaitable[Sequence[V]]]) -> None:
        self._call = call
        self._running: dict[K, _Running[K, V]] = {}

    async def __call__(self, keys: Sequence[K]) -> list[V]:
        """The values of `keys`, in order.

        Raises: what `call` raises for these keys. The StoreError of a call for other keys too is not one for these.
        """
        new = [key for key in dict.fromkeys(keys) if key not in self._running]
        own = self._begin(new) if new else None
        shared: dict[_Running[K, V], list[K]] = {}
        for key in dict.fromkeys(keys):
            shared.setdefault(self._running[key], []).append(key)
        for running in shared:
            running.waiters += 1
        values: dict[K, V] = {}
        try:
            for running, some in shared.items():
                try:
                    values |= await asyncio.shield(running.task)
                except StoreError:
                    if running is own:
                        raise
                    values |= zip(some, await self._call(some), strict=True)
        finally:
            for running in shared:
                running.waiters -= 1
                if not running.waiters:
                    running.task.cancel()
                    self._forget(running)  # at once: who comes now must not wait for a call that is cancelled
        return [values[key] for key in keys]

    def _begin(self, keys: Sequence[K]) -> _Running[K, V]:
        async def work() -> dict[K, V]:
            return dict(zip(keys, await self._call(keys), strict=True))

        running = _Running(keys, asyncio.create_task(work()))
        for key in keys:
            self._running[key] = running
        running.task.add_done_callback(lambda task: self._end(running, task))
        return running

    def _end(self, running: _Running[K, V], task: asyncio.Task[dict[K, V]]) -> None:
        self._forget(running)
        if not task.cancelled():
            task.exception()  # all who wait have it

    def _forget(self, running: _Running[K, V]) -> None:
        for key in running.keys:
            if self._running.get(key) is running:
                del self._running[key]
