"""Substituters: upstream caches in the order in which they are asked."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from tvix_store.layers.substituter import Substituter

_INTRODUCTION = 5.0
"""Seconds for which the first who look for something wait until all upstreams have said who they are."""


class Substituters:
    """Some upstreams, by priority; where priorities are equal, in the order in which they were given."""

    def __init__(self, substituters: Sequence[Substituter]) -> None:
        self._substituters = list(substituters)
        self._introductions: asyncio.Task[None] | None = None
        self._introduced_by = 0.0

    async def in_order(self) -> list[Substituter]:
        """All of them, once their order is known; one that does not answer in time takes its place when it does."""
        clock = asyncio.get_running_loop().time
        if self._introductions is None:
            self._introductions = asyncio.create_task(self._introduce())
            self._introduced_by = clock() + _INTRODUCTION
        if not self._introductions.done():
            await asyncio.wait((self._introductions,), timeout=max(0.0, self._introduced_by - clock()))
        if self._introductions.done():
            self._introductions.result()  # raises what nobody foresaw
        return sorted(self._substituters, key=lambda each: each.priority)

    def forget(self, output_hash: bytes) -> None:
        """Ask for a path again, whatever is remembered."""
        for substituter in self._substituters:
            substituter.forget(output_hash)

    async def close(self) -> None:
        """End the connections."""
        if self._introductions is not None:
            self._introductions.cancel()
            await asyncio.gather(self._introductions, return_exceptions=True)
        for substituter in self._substituters:
            await substituter.close()

    async def _introduce(self) -> None:
        await asyncio.gather(*(substituter.introduce() for substituter in self._substituters))
