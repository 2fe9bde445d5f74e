"""Cooperative yielding: long loops let others run. An event loop serves everybody, and a directory may have 190,000 entries."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from time import perf_counter
from typing import TypeVar

T = TypeVar("T")

STEPS = 2048
"""Steps of a few µs each that are taken before others run."""


async def cooperatively(items: Iterable[T]) -> AsyncIterator[T]:
    """The items; others run every `STEPS` of them."""
    for number, item in enumerate(items, 1):
        yield item
        if number % STEPS == 0:
            await asyncio.sleep(0)


_SECONDS = 0.005


class Yielder:
    """For a loop of longer and unequal steps: it yields after 5 ms."""

    __slots__ = ("_end",)

    def __init__(self) -> None:
        self._end = perf_counter() + _SECONDS

    async def step(self) -> None:
        """Let others run, if the 5 ms are over."""
        if perf_counter() > self._end:
            await asyncio.sleep(0)
            self._end = perf_counter() + _SECONDS
