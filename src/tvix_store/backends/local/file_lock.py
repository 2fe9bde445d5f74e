"""Locks on the files of a store, by flock(2). Who opens a file once more is somebody else, in the same process too."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tvix_store.backends.local.disk import disk_errors

PAUSE = 0.1
"""Seconds between two tries, for who waits and says so meanwhile."""


def take(fd: int, how: int) -> bool:
    """Lock an open file, shared or alone (`LOCK_SH`, `LOCK_EX`), if that can be done now; whether it is done."""
    try:
        fcntl.flock(fd, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def alone(path: Path) -> Iterator[bool]:
    """A lock on a file or directory, for which nobody waits; whether this process has it.

    Raises:
        DeniedError, UnavailableError: it cannot be opened.
    """
    with disk_errors(path):
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield take(fd, fcntl.LOCK_EX)
    finally:
        os.close(fd)
