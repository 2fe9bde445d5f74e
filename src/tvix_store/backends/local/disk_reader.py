"""DiskReader: reads packs from the disk itself, for whoever looks for damage.

What lies in the kernel's page cache says nothing of the disk. So pages are dropped from the cache before they are read. They are
dropped again afterwards, since nobody else may need them. Who does need one reads it from the disk once more.
"""

from __future__ import annotations

import mmap
import os
from pathlib import Path

from tvix_store.backends.local.disk import translated
from tvix_store.backends.local.packs import pack_path, read_key
from tvix_store.errors import CorruptError

_WINDOW = 1 << 20
"""Bytes that are read with one call, where neighbours follow."""


class DiskReader:
    """Reads parts of packs, one pack after the other. Used by one thread."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._number = 0
        self._fd: int | None = None
        self._window, self._window_at = b"", 0

    def read(self, number: int, offset: int, size: int) -> bytes:
        """Part of a pack. It may be as old as the last read of its neighbours: packs grow, and do not change.

        Raises:
            CorruptError: the pack is missing, or too short.
            UnavailableError: the disk does not give it.
        """
        fd = self._opened(number)
        at = offset - self._window_at
        if not 0 <= at <= len(self._window) - size:
            try:
                self._window, self._window_at = _read_from_disk(fd, offset, size)
            except OSError as error:
                raise translated(error, pack_path(self._directory, number)) from error
            at = offset - self._window_at
        data = self._window[at : at + size]
        if len(data) != size:
            raise CorruptError(f"{pack_path(self._directory, number)} is cut short: no {size} bytes at {offset}")
        return data

    def key(self, number: int) -> bytes:
        """The key of a pack's record checks.

        Raises:
            CorruptError: the pack is missing, or its first bytes are wrong.
            UnavailableError: the disk does not give them.
        """
        path = pack_path(self._directory, number)
        try:
            return read_key(self._opened(number), path)
        except OSError as error:
            raise translated(error, path) from error

    def let_go(self) -> None:
        """Close a pack that was removed meanwhile, so that the file system gets its space back."""
        if self._fd is not None and os.fstat(self._fd).st_nlink == 0:
            self.close()

    def close(self) -> None:
        """Close the pack, and keep nothing in memory. The next read opens a pack again."""
        if self._fd is not None:
            os.close(self._fd)
        self._fd, self._window = None, b""

    def _opened(self, number: int) -> int:
        if self._fd is None or number != self._number:
            self.close()
            path = pack_path(self._directory, number)
            try:
                self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                raise CorruptError(f"{path} is missing, but the index names it") from None
            except OSError as error:
                raise translated(error, path) from error
            self._number = number
            # The kernel would read ahead, and keep in memory what is read in vain.
            os.posix_fadvise(self._fd, 0, 0, os.POSIX_FADV_RANDOM)
        return self._fd


def _read_from_disk(fd: int, offset: int, size: int) -> tuple[bytes, int]:
    """The bytes from `offset` on, with their neighbours, and where they begin."""
    start = offset - offset % mmap.PAGESIZE  # a page that is advised on in part stays
    wanted = max(offset + size - start, _WINDOW)
    os.posix_fadvise(fd, start, wanted, os.POSIX_FADV_DONTNEED)
    try:
        return _pread(fd, wanted, start), start
    except OSError:  # of a neighbour, it may be
        return _pread(fd, size, offset), offset
    finally:
        os.posix_fadvise(fd, start, wanted, os.POSIX_FADV_DONTNEED)


def _pread(fd: int, size: int, offset: int) -> bytes:
    """As os.pread, but less than `size` bytes only where the file ends. A call that meets a bad place gives what lies before it."""
    data = os.pread(fd, size, offset)
    while len(data) < size and (more := os.pread(fd, size - len(data), offset + len(data))):
        data += more
    return data
