"""The lock of a store: the file `<store>/lock`. Each user of the store holds it shared; who makes the index anew holds it alone."""

from __future__ import annotations

import fcntl
import logging
import os
import time
from pathlib import Path

from tvix_store.backends.local.disk import open_or_create
from tvix_store.backends.local.file_lock import PAUSE, take
from tvix_store.backends.local.index_damage import CrashNotes

FILE = "lock"
_SILENT = 1.0
"""Seconds of waiting before the log says so: an index is compacted in less."""
_TOLD_EVERY = 10.0
"""Seconds between two such lines."""
_log = logging.getLogger(__name__)


class StoreLock:
    """The lock, held by nobody at first. `crash_notes` are in the same file: every user has it open."""

    def __init__(self, store: Path) -> None:
        self._store = store
        self._fd = open_or_create(store / FILE, os.O_APPEND)
        self.crash_notes = CrashNotes(self._fd)

    def share(self) -> None:
        """Become a user. Waits for as long as another process has the store alone: it makes the index anew."""
        begun = time.monotonic()
        tell_at = begun + _SILENT
        while not take(self._fd, fcntl.LOCK_SH):
            if time.monotonic() >= tell_at:
                tell_at += _TOLD_EVERY
                _log.warning("waiting for another process that makes the index of %s anew", self._store)
            time.sleep(PAUSE)

    def take_alone(self) -> bool:
        """Have the store alone, if nobody uses it now. If not, nothing is held any more: see flock(2)."""
        return take(self._fd, fcntl.LOCK_EX)

    def release(self) -> None:
        fcntl.flock(self._fd, fcntl.LOCK_UN)

    def close(self) -> None:
        self.crash_notes.end()
        os.close(self._fd)
