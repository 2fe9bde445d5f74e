"""PackScan: goes through the entries of a pack, one behind the other, past damaged places."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tvix_store.backends.local.packs import Place, read_key
from tvix_store.backends.local.progress import Progress
from tvix_store.backends.local.records import HEADER_SIZE, MAGIC, SELF_NAMING, Kind, checks_out, parse_header

_WINDOW = 16 << 10
"""Bytes that are read at a time. Of large contents that are not looked at, most is passed over."""
_SEARCHED = 1 << 20
"""Bytes that are searched for the next entry at a time."""
_MAX_CHECKED = 64 << 20
"""Bytes of the largest payload that is read to be checked: chunk list segments have 144 KiB, path infos far less."""
_log = logging.getLogger(__name__)


class Entry(NamedTuple):
    """An entry of a pack: where its payload lies, as stored and as meant. It is given unless the kind is one that names itself."""

    kind: Kind
    key: bytes
    pack: int
    offset: int
    stored: int
    length: int
    payload: bytes

    @property
    def place(self) -> Place:
        return Place(self.pack, self.offset, self.stored, self.length)

    @property
    def end(self) -> int:
        return self.offset + self.stored


class PackScan:
    """Reads a pack from the offset `start` on. Where it `is_live`, somebody may be writing to its end.

    Raises:
        CorruptError: the file is not a pack.
    """

    def __init__(self, path: Path, number: int, start: int, *, is_live: bool = False) -> None:
        self._path = path
        self._level = logging.DEBUG if is_live else logging.WARNING
        self.number = number
        self.start = start
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._window, self._window_at = b"", 0
        try:
            self._key = read_key(self._fd, path)
            self.size = os.fstat(self._fd).st_size
            # After a failed write-back, memory and disk differ.
            os.posix_fadvise(self._fd, start, 0, os.POSIX_FADV_DONTNEED)
        except BaseException:
            os.close(self._fd)
            raise

    def close(self) -> None:
        os.close(self._fd)

    def entries(self, progress: Progress, end: int | None = None) -> Iterator[Entry]:
        """The entries up to `end`, in their order."""
        at, size = self.start, self.size if end is None else end
        number, key, done = self.number, self._key, 0
        while at + HEADER_SIZE <= size:
            head = self.read(HEADER_SIZE, at)
            header = parse_header(head)
            payload = b""
            begin = at + HEADER_SIZE
            behind = begin + (header.stored if header else 0)
            if header is not None and header.kind not in SELF_NAMING and header.stored <= _MAX_CHECKED and behind <= size:
                payload = self.read(header.stored, begin)
            if header is not None and behind <= size and checks_out(key, header, head, payload):
                yield Entry(header.kind, header.key, number, begin, header.stored, header.length, payload)
            else:
                behind = self._next_magic(at + 1, size)
                _log.log(self._level, "%s: passed over %d damaged bytes at %d", self._path, behind - at, at)
            done += behind - at
            if done >= _SEARCHED:
                progress.add(done)
                done = 0
            at = behind
        progress.add(done)

    def read(self, size: int, at: int) -> bytes:
        begin = at - self._window_at
        if begin < 0 or begin + size > len(self._window):
            if size >= _WINDOW:
                return os.pread(self._fd, size, at)
            self._window, self._window_at, begin = os.pread(self._fd, _WINDOW, at), at, 0
        return self._window[begin : begin + size]

    def _next_magic(self, at: int, end: int) -> int:
        while at < end:
            window = os.pread(self._fd, _SEARCHED, at)
            found = window.find(MAGIC)
            if found >= 0:
                return min(at + found, end)
            at += max(len(window) - len(MAGIC) + 1, 1)
        return end
