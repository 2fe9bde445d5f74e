"""AskingAhead: upstreams are asked for the references of a path before the client asks.

Nix 2.8 asks for a closure path by path (`nix path-info --recursive`), so each path would take a round trip to the upstream.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from time import monotonic

from tvix_store.errors import StoreError

_AT_ONCE = 48
"""Paths that are asked about ahead at the same time. A few requests of each upstream stay free for what clients ask."""
_MOST_WAITING = 20_000
"""Paths that wait to be asked about. More are left to the clients."""
_PAUSE = 30.0
"""Seconds for which the references of a path are not asked about again."""
_MOST_REMEMBERED = 100_000


class AskingAhead:
    """Calls `ask` for output hashes that clients are likely to ask for next."""

    def __init__(self, ask: Callable[[bytes], Awaitable[object]]) -> None:
        self._ask = ask
        self._waiting: dict[bytes, None] = {}
        self._running: set[asyncio.Task[None]] = set()
        self._asked: dict[bytes, float] = {}  # path → when its references may be asked about again; the oldest first

    def begin(self, path: bytes, references: Iterable[bytes]) -> None:
        """A client has asked for a path with these references; all are output hashes."""
        now = monotonic()
        if self._asked.get(path, 0.0) > now:
            return
        self._asked.pop(path, None)
        self._asked[path] = now + _PAUSE
        if len(self._asked) > _MOST_REMEMBERED:
            del self._asked[next(iter(self._asked))]
        for reference in references:
            if reference != path and len(self._waiting) < _MOST_WAITING:
                self._waiting[reference] = None
        while len(self._running) < min(_AT_ONCE, len(self._waiting)):
            task = asyncio.create_task(self._work())
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    async def close(self) -> None:
        """End what is running."""
        self._waiting.clear()
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    async def _work(self) -> None:
        while self._waiting:
            output_hash = next(iter(self._waiting))
            del self._waiting[output_hash]
            with suppress(StoreError):  # the client that asks for this path will hear of it
                await self._ask(output_hash)
