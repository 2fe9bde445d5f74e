"""Counting the turns of other tasks."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable


async def turns_during(work: Awaitable[object]) -> int:
    """How often another task runs while `work` does."""
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    try:
        await work
    finally:
        task.cancel()
    return turns
