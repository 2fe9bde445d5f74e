"""FetchLock: one fetch of a path at a time, across processes."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from tvix_store.errors import UnavailableError

_FLOCK = struct.Struct("hhqqi4x")
"""`struct flock` where off_t has 64 bits: type, whence, start, length, pid."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.01, 0.25
"""Seconds between two tries."""
_TAKEN = (errno.EAGAIN, errno.EACCES)


def _open(file: Path) -> int:
    return os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


class FetchLock:
    """Locks by output hash: each is a byte of one empty file, which all processes at a store name.

    They are open file description locks, so they are gone when their holder is. Two paths that share a byte wait for each other.
    `opener` opens the file to read and write, and makes it where it does not exist: by default for this user alone.
    """

    def __init__(self, file: Path, opener: Callable[[Path], int] = _open) -> None:
        self._file = file
        self._opener = opener

    @asynccontextmanager
    async def holding(self, output_hash: bytes) -> AsyncIterator[None]:
        """Hold the lock of a path, once nobody else does.

        Raises:
            UnavailableError: the file cannot be opened or locked.
        """
        try:
            descriptor = self._opener(self._file)
        except OSError as error:
            raise UnavailableError(f"cannot open {self._file}: {error.strerror}") from None
        try:
            pause = _FIRST_PAUSE
            while not self._try(descriptor, int.from_bytes(output_hash[:8], "big") >> 2):
                await asyncio.sleep(pause)  # no thread that waits in the kernel: it could not be called off
                pause = min(pause * 2, _LONGEST_PAUSE)
            yield
        finally:
            os.close(descriptor)

    def _try(self, descriptor: int, place: int) -> bool:
        try:
            fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, place, 1, 0))
        except OSError as error:
            if error.errno in _TAKEN:
                return False
            raise UnavailableError(f"cannot lock {self._file}: {error.strerror}") from None
        return True
