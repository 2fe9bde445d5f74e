"""The lock of collection: the file `<store>/collecting`. A collector holds it alone; who copies the packs holds it shared.

So no pack is rewritten or removed while a backup copies the packs that a state of the index names.
"""

from __future__ import annotations

import fcntl
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tvix_store.backends.local.disk import disk_errors, open_or_create
from tvix_store.backends.local.file_lock import PAUSE, alone, take
from tvix_store.errors import DiskDeniedError, DiskFullError

FILE = "collecting"
_TOLD_EVERY = 10.0
"""Seconds between two lines in the log while a collector is waited for."""
_log = logging.getLogger(__name__)


@contextmanager
def collecting(store: Path) -> Iterator[bool]:
    """The lock alone, for which nobody waits; whether this process has it. False while a backup is made.

    Raises:
        StoreError: its file cannot be made.
    """
    path = store / FILE
    with disk_errors(path):
        _make(path)
    with alone(path) as has_it:
        yield has_it


def have_collected(store: Path) -> None:
    """Note, as the time of the lock's file, that a collection has ended now."""
    with disk_errors(store):
        os.utime(store / FILE)


@contextmanager
def not_collecting(store: Path, *, makes_file: bool = True) -> Iterator[None]:
    """Keep collectors away. Waits for the end of one that is at work, and says so in the log.

    Who cannot, or shall not, make the file goes on without it, where there is none: no collector has run so far. Should one begin
    meanwhile, a pack will be missing, and the caller has to say so.
    """
    fd = _opened(store / FILE, makes_file=makes_file)
    if fd is None:
        yield
        return
    try:
        told_at = -_TOLD_EVERY
        while not take(fd, fcntl.LOCK_SH):
            if time.monotonic() >= told_at + _TOLD_EVERY:
                told_at = time.monotonic()
                _log.warning("waiting for a collection in %s to end", store)
            time.sleep(PAUSE)
        yield
    finally:
        os.close(fd)


def _opened(path: Path, *, makes_file: bool) -> int | None:
    with disk_errors(path):
        try:
            return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            if not makes_file:
                return None
    try:
        with disk_errors(path):
            _make(path)
            return open_or_create(path)
    except (DiskDeniedError, DiskFullError):
        return None


def _make(path: Path) -> None:
    """Make the file, if there is none. Its time says when the last collection ended: there was none."""
    if not path.exists():
        os.close(open_or_create(path))
        os.utime(path, (0, 0))
