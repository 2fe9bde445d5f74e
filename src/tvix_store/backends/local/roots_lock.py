"""RootsLock: what was found to be there stays there until the root is put that needs it (rule F3 in docs/design/collection.md).

Whoever puts roots holds it together with others, and whoever publishes condemned content alone. A process that dies lets it go.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from tvix_store.backends.local.disk import disk_errors, open_or_create
from tvix_store.backends.local.file_lock import take

_FILE, _GATE = "roots", "roots-gate"
"""The locked file, and one that each passes on the way: who wants the lock alone closes it behind himself. Else those who share the
lock, one after the other, could keep him out for ever."""
_PAUSE = 0.005
"""Seconds between two tries."""


class RootsLock:
    """The lock of one store."""

    def __init__(self, store: Path) -> None:
        self._store = store

    @asynccontextmanager
    async def shared(self) -> AsyncIterator[None]:
        """Hold it with others.

        Raises:
            DiskDeniedError, DiskFullError: its file cannot be made.
        """
        with self._opened(_FILE) as lock:
            with self._opened(_GATE) as gate:
                for each in (gate, lock):
                    while not take(each, fcntl.LOCK_SH):  # noqa: ASYNC110 - another process holds it
                        await asyncio.sleep(_PAUSE)
            yield

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Hold it alone; waits in this thread for all others. Raises as `shared`."""
        with self._opened(_GATE) as gate, self._opened(_FILE) as lock:
            fcntl.flock(gate, fcntl.LOCK_EX)
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    @contextmanager
    def _opened(self, name: str) -> Iterator[int]:
        with disk_errors(self._store):
            fd = open_or_create(self._store / name)
        try:
            yield fd
        finally:
            os.close(fd)
