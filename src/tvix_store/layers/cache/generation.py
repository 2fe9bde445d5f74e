"""Generation: values of a cache in two files, to which many processes add, and of which nothing is ever taken out.

`data` has the values, each behind its key, one behind the other. `table` says where they lie. It is a hash table of pages with 128
slots; a key has its slot in the one page that its digest chooses. A full page loses another slot.

Nothing here is relied on. A slot has a checksum, and the key stands before the value. So a torn slot, a lost page, or a value that
never reached the disk, is a value that is not there. Damage inside of a value is for the reader to find.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from struct import Struct
from zlib import crc32

from tvix_store.layers.cache.near import Value

_PAGE = 4096
_SLOT = Struct("<16sQII")
"""A name for the key, where key and value lie in `data`, how many bytes they have, and a checksum of these three."""
_CHECKED = _SLOT.size - 4
_EMPTY = bytes(16)
_ROOM = 2048
"""Bytes of data for each slot: chunks have some 20 KiB, most directories and small files less than 2. So tables are half empty."""
TABLE, DATA = "table", "data"


class Generation:
    """An open generation. Its files are closed with the last reference to it, and so never under a reader."""

    def __init__(self, directory: Path, number: int) -> None:
        self.number = number
        self._writing = threading.Lock()
        self._table = self._data = -1
        self._table = os.open(directory / TABLE, os.O_RDWR | os.O_CLOEXEC)
        self._data = os.open(directory / DATA, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
        self._table_size = os.fstat(self._table).st_size
        self._pages = max(self._table_size // _PAGE, 1)

    def __del__(self, close: Callable[[int], None] = os.close) -> None:
        for fd in (self._table, self._data):
            if fd >= 0:
                close(fd)

    @property
    def size(self) -> int:
        """Bytes of both files."""
        return self._table_size + os.fstat(self._data).st_size

    def get(self, key: bytes) -> memoryview | None:
        """The value of a key, or None.

        Raises:
            OSError: the disk does not give it.
        """
        return self._get(key, os.pread)

    def peek(self, key: bytes) -> memoryview | None:
        """As `get`.

        Raises:
            OSError: that would wait for the disk, or this file system cannot tell.
        """
        return self._get(key, _read_at_once)

    def _get(self, key: bytes, read: Callable[[int, int, int], bytes | bytearray]) -> memoryview | None:
        page = read(self._table, _PAGE, self._page(key))
        at = _find(page, _name(key))
        if at < 0 or at + _SLOT.size > len(page):
            return None
        _, offset, size, check = _SLOT.unpack_from(page, at)
        if check != crc32(page[at : at + _CHECKED]):
            return None
        data = read(self._data, size, offset)
        return memoryview(data)[len(key) :] if len(data) == size and data.startswith(key) else None

    def put(self, values: Mapping[bytes, Value]) -> None:
        """Add values. Those that were there under the same keys are found no more.

        Raises:
            OSError: the disk is full, for example. Some may have been added.
        """
        data = b"".join(part for item in values.items() for part in item)
        with self._writing:
            # Other processes append too: the system chooses the place, and says where it ends.
            written = os.write(self._data, data)
            at = os.lseek(self._data, 0, os.SEEK_CUR) - written
        end = at + written
        for key, value in values.items():
            size = len(key) + len(value)
            if at + size > end:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self._point(key, at, size)
            at += size

    def _point(self, key: bytes, offset: int, size: int) -> None:
        name = _name(key)
        start = self._page(key)
        page = os.pread(self._table, _PAGE, start)
        at = _find(page, name)
        if at < 0:
            at = _find(page, _EMPTY)
        if at < 0:  # full: one goes, which the last byte of the key chooses
            at = key[-1] % (_PAGE // _SLOT.size) * _SLOT.size
        slot = _SLOT.pack(name, offset, size, 0)[:_CHECKED]
        os.pwrite(self._table, slot + crc32(slot).to_bytes(4, "little"), start + at)

    def _page(self, key: bytes) -> int:
        return int.from_bytes(key[1:9], "little") % self._pages * _PAGE


def make_generation(directory: Path, size: int) -> None:
    """Make the files of a generation for `size` bytes in a directory.

    Raises:
        OSError: the disk does not let us.
    """
    directory.mkdir(mode=0o700)
    for name, length in ((TABLE, max(size // _ROOM * _SLOT.size // _PAGE, 1) * _PAGE), (DATA, 0)):
        fd = os.open(directory / name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(fd, length)
        finally:
            os.close(fd)


def drop_generation(directory: Path) -> None:
    """Delete a generation. Its space is free at once, also where processes have it open: they find nothing in it any more.

    Raises:
        OSError: the disk does not let us.
    """
    for file in directory.iterdir():
        os.truncate(file, 0)
        file.unlink()
    directory.rmdir()


def _name(key: bytes) -> bytes:
    """The kind, and a part of the digest."""
    return key[:1] + key[-15:]


def _read_at_once(fd: int, size: int, offset: int) -> bytearray:
    data = bytearray(size)
    count = os.preadv(fd, [data], offset, os.RWF_NOWAIT)
    return data if count == size else data[:count]


def _find(page: bytes | bytearray, name: bytes) -> int:
    """Where the slot with a name begins, or -1."""
    at = page.find(name)
    while at >= 0 and at % _SLOT.size:
        at = page.find(name, at + 1)
    return at
