"""Giving memory back that a worker has freed, which glibc's malloc keeps."""

from __future__ import annotations

import asyncio
import ctypes
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from tvix_store.traffic import Traffic

_LOOK = 2.0
"""Seconds between looks at whether memory may be given back."""
_WORTH = 64 << 20
"""Bytes of memory that are more than at the last time, from which it is worth it."""
_IDLE = 16 << 20
"""Bytes that may be under way then."""
_PAGE = os.sysconf("SC_PAGE_SIZE")


@asynccontextmanager
async def giving_back(traffic: Traffic) -> AsyncIterator[None]:
    """While the body runs, give freed memory back to the kernel when it was a lot, and little is under way.

    malloc alone gives back memory at the end of an arena. After 2,000 large answers there is none.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)

    async def look(trim: Callable[[int], object]) -> None:
        least = _resident()
        while True:
            await asyncio.sleep(_LOOK)
            if traffic.incoming.held + traffic.outgoing.held <= _IDLE and _resident() > least + _WORTH:
                await asyncio.to_thread(trim, 0)
                least = _resident()

    looking = asyncio.create_task(look(trim)) if trim is not None else None
    try:
        yield
    finally:
        if looking is not None:
            looking.cancel()


def _resident() -> int:
    """Bytes of memory of this process that no file backs. Source: proc(5), statm."""
    _, resident, shared, *_ = Path("/proc/self/statm").read_text().split()
    return (int(resident) - int(shared)) * _PAGE
