"""Packs: append-only files of records. A writer owns the pack that it appends to; anybody may read any pack.

    <store>/packs/<8 hex digits>.pack:  16 bytes magic, 32 bytes key of the record checks, records

The owner holds an exclusive lock (`flock`) on its pack. A pack whose owner is gone and that is not full is taken over by
the next writer, which first cuts off what its last owner had not committed to the index: nobody was told of that.
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from struct import Struct

from tvix_store.backends.local.disk import disk_errors, new_file, sync_file, translated, unfinished_name
from tvix_store.backends.local.records import HEADER_SIZE, KEY_SIZE, Buffer, Kind, NewRecord, checks_out, mark, parse_header
from tvix_store.errors import CorruptError, UnavailableError

MAGIC = b"tvix-store pack\n"
PREFIX_SIZE = len(MAGIC) + KEY_SIZE
_FLUSH_SIZE = 8 << 20
_IOV_MAX = 1024
"""Buffers that Linux takes in one call."""
_GAP, _SPAN = 16 << 10, 4 << 20
"""Bytes between two payloads that are read together, and of all that are: reading 16 KiB in vain costs less than another call."""
_LOOKED_AT = 64
"""How many of the newest packs to try when looking for one to reuse. It must exceed the number of concurrent writers."""
_OPEN_PACKS = 256
"""Packs that a reader keeps open; the soft limit of open files is 1024 on many systems. Others are opened for each read."""

_PLACE = Struct("<IQII")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a payload lies: pack number, offset, stored and meant length (bytes). Stored shorter than meant is one zstd frame."""

    pack: int
    offset: int
    stored: int
    length: int

    SIZE = _PLACE.size

    def to_bytes(self) -> bytes:
        return _PLACE.pack(self.pack, self.offset, self.stored, self.length)

    @classmethod
    def from_bytes(cls, data: bytes) -> Place:
        return cls(*_PLACE.unpack_from(data))


def pack_path(directory: Path, number: int) -> Path:
    return directory / f"{number:08x}.pack"


def pack_numbers(directory: Path) -> list[int]:
    """The numbers of all packs, in order."""
    return sorted(int(name[:-5], 16) for name in os.listdir(directory) if len(name) == 13 and name.endswith(".pack"))


def read_key(fd: int, path: Path) -> bytes:
    """The key of a pack's record checks.

    Raises:
        CorruptError: the file is not a pack.
    """
    prefix = os.pread(fd, PREFIX_SIZE, 0)
    if len(prefix) != PREFIX_SIZE or not prefix.startswith(MAGIC):
        raise CorruptError(f"{path} is not a pack: its first bytes are wrong")
    return prefix[len(MAGIC) :]


class PackWriter:
    """Appends records to a pack of its own. Used by one thread at a time."""

    def __init__(
        self, directory: Path, committed_size: Callable[[int], int], highest_number: Callable[[], int], seal_size: int
    ) -> None:
        self._directory = directory
        self._committed_size = committed_size
        self._highest_number = highest_number
        self._seal_size = seal_size
        self._fd: int | None = None
        self._path = ""
        self._key = b""
        self.number = 0
        """Of the pack that is written now; 0 before the first."""
        self.size = 0
        """Bytes of it, with what is not committed yet."""
        self._kept = self._flushed = self._synced = 0
        self._marks: list[NewRecord] = []
        """To be written before the next records."""

    @property
    def is_full(self) -> bool:
        """Whether `next_pack` must be called before more is appended."""
        return self._fd is None or self.size >= self._seal_size

    @property
    def is_lost(self) -> bool:
        """Whether somebody has removed or cut the pack, so that what is appended to it is lost."""
        if self._fd is None:
            return False
        own = os.fstat(self._fd)
        try:
            named = os.stat(self._path)
        except OSError:
            return True
        return named.st_ino != own.st_ino or own.st_size < self.size

    def next_pack(self) -> None:
        """Go on with another pack. All that was appended must be committed: an unfinished pack is cut to what the index names."""
        assert self.size == self._kept
        self.close()
        with disk_errors(self._directory):
            numbers = pack_numbers(self._directory)
            # Only the newest can be unfinished in practice; looking at all would cost a system call for each pack there is.
            for number in reversed(numbers[-_LOOKED_AT:]):
                if self._take_over(number):
                    return
            self._create(max(numbers[-1] if numbers else 0, self._highest_number()) + 1)

    def append(self, records: Sequence[NewRecord]) -> list[Place]:
        """Write records behind each other; the places of their payloads. They are on the disk itself after `sync`.

        Raises:
            ExhaustedError: the disk is full. Nothing was kept.
            UnavailableError: somebody has cut the pack. To write behind its end would make a hole, and hide that it is lost.
        """
        if self._fd is not None and os.fstat(self._fd).st_size < self.size:
            raise UnavailableError(f"{self._path} was cut short while it was written; put the content again")
        places: list[Place] = []
        parts: list[Buffer] = []
        at = self.size
        for record in (*self._marks, *records):
            parts.append(record.header(self._key))
            parts.append(record.payload)
            places.append(Place(self.number, at + HEADER_SIZE, len(record.payload), record.length))
            at += HEADER_SIZE + len(record.payload)
        self._write(parts)
        self.size = at
        if at - self._flushed >= _FLUSH_SIZE:
            self._begin_flush()
        del places[: len(self._marks)]
        self._marks = []
        return places

    def begin_stage(self) -> None:
        """What is appended from now on is not accepted yet."""
        self._marks.append(mark(Kind.STAGED))

    def accept_stage(self) -> None:
        """All that was appended is accepted; it is still to be named.

        Raises:
            ExhaustedError: as `append`.
        """
        self.append([mark(Kind.COMMITTED)])
        self.keep()

    def keep(self) -> None:
        """What was appended stays: the index names it, or will."""
        self._kept = self.size

    def rewind(self) -> None:
        """Take back what was appended since the last `keep`."""
        self.size = self._kept
        self._flushed = min(self._flushed, self.size)
        self._synced = min(self._synced, self.size)
        if self._fd is not None:
            with suppress(OSError):  # what is left behind is overwritten, or cut off by the next owner
                if os.fstat(self._fd).st_size > self.size:  # never longer: a pack that somebody has cut is lost
                    os.ftruncate(self._fd, self.size)

    def cut(self) -> None:
        """Take back everything that the index does not name. A pack that it does not name at all is left alone."""
        if self._fd is not None:
            committed = self._committed_size(self.number)
            if committed < PREFIX_SIZE:
                self.close()
                return
            if committed < self.size:
                self._kept = committed
                self.rewind()
            self._marks = []

    def sync(self) -> None:
        """Bring everything appended to the disk itself."""
        if self._fd is not None and self._synced < self.size:
            with disk_errors(self._directory):
                os.fdatasync(self._fd)
            self._synced = self.size

    def close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
        self.number = self.size = self._kept = self._flushed = self._synced = 0
        self._marks = []

    def _write(self, parts: list[Buffer]) -> None:
        assert self._fd is not None
        at = self.size
        with disk_errors(self._directory):
            for first in range(0, len(parts), _IOV_MAX):
                some = parts[first : first + _IOV_MAX]
                size = sum(map(len, some))
                written = os.pwritev(self._fd, some, at)
                while written < size:  # a disk that is nearly full
                    written += os.pwrite(self._fd, b"".join(some)[written:], at + written)
                at += size

    def _begin_flush(self) -> None:
        """Let the disk begin with what was appended, so that a `sync` later finds little to wait for.

        Linux begins to write dirty pages on this advice, and does not drop them from memory while they are written.
        """
        assert self._fd is not None
        os.posix_fadvise(self._fd, self._flushed, self.size - self._flushed, os.POSIX_FADV_DONTNEED)
        self._flushed = self.size

    def _take_over(self, number: int) -> bool:
        path = pack_path(self._directory, number)
        try:
            if path.stat().st_size >= self._seal_size:
                return False
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except (PermissionError, FileNotFoundError):  # another user's, or one that was removed
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return False
        try:
            size = self._committed_size(number)
            # No row: not one of ours, or damaged so that its records are unknown. Whatever it holds may still be mended.
            if not PREFIX_SIZE <= size < self._seal_size or os.fstat(fd).st_size < size:
                os.close(fd)
                return False
            key = read_key(fd, path)
            os.ftruncate(fd, size)
        except CorruptError:
            os.close(fd)
            return False
        except BaseException:
            os.close(fd)
            raise
        self._use(fd, key, number, size)
        # All that is left in the pack was accepted: the rest has just been cut off. Say so once more, since the record that said
        # it may be damaged.
        self._marks = [mark(Kind.COMMITTED)]
        return True

    def _create(self, number: int) -> None:
        while True:
            # Made under another name and linked when its prefix is on disk: a pack always begins with its prefix.
            unfinished = unfinished_name(self._directory / "pack")
            fd = new_file(unfinished)
            try:
                key = os.urandom(KEY_SIZE)
                os.write(fd, MAGIC + key)
                os.fsync(fd)
                fcntl.flock(fd, fcntl.LOCK_EX)
                os.link(unfinished, pack_path(self._directory, number))
            except FileExistsError:
                os.close(fd)
                number += 1
                continue
            except BaseException:
                os.close(fd)
                raise
            finally:
                os.unlink(unfinished)
            sync_file(self._directory)
            self._use(fd, key, number, PREFIX_SIZE)
            return

    def _use(self, fd: int, key: bytes, number: int, size: int) -> None:
        self._fd, self._key, self.number, self.size = fd, key, number, size
        self._path = str(pack_path(self._directory, number))
        self._kept = self._flushed = size
        self._synced = 0  # what another owner has written may not be on the disk


class PackReader:
    """Reads payloads from packs. Safe to use from many threads."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._fds: dict[int, int] = {}
        self._keys: dict[int, bytes] = {}
        self._lock = threading.Lock()

    def read(self, place: Place) -> bytes:
        """The payload at `place`, as stored.

        Raises:
            CorruptError: the pack is missing, or too short.
            UnavailableError: the disk does not give it.
        """
        with self._opened(place.pack) as fd:
            data = self._pread(fd, place.pack, place.stored, place.offset)
        if len(data) != place.stored:
            raise CorruptError(f"{pack_path(self._directory, place.pack)} is cut short: no {place.stored} bytes at {place.offset}")
        return data

    def read_many(self, places: Sequence[Place]) -> list[memoryview]:
        """The payloads at `places`, in their order; neighbours in a pack are read together.

        Raises:
            CorruptError: as `read`.
        """
        order = sorted(range(len(places)), key=lambda n: (places[n].pack, places[n].offset))
        payloads: list[memoryview] = [memoryview(b"")] * len(places)
        first = 0
        while first < len(order):
            start = places[order[first]]
            end, last = start.offset + start.stored, first + 1
            while last < len(order) and _is_near(place := places[order[last]], start, end):
                end, last = max(end, place.offset + place.stored), last + 1
            span = memoryview(self.read(Place(start.pack, start.offset, end - start.offset, 0)))
            for n in order[first:last]:
                at = places[n].offset - start.offset
                payloads[n] = span[at : at + places[n].stored]
            first = last
        return payloads

    def read_checked(self, place: Place) -> bytes:
        """As `read`, for a record whose key is not the digest of its payload: its check is looked at.

        Raises:
            CorruptError: also where the record is damaged.
        """
        with self._opened(place.pack) as fd:
            if place.pack not in self._keys:
                self._keys[place.pack] = read_key(fd, pack_path(self._directory, place.pack))
            data = self._pread(fd, place.pack, HEADER_SIZE + place.stored, place.offset - HEADER_SIZE)
        head, payload = data[:HEADER_SIZE], data[HEADER_SIZE:]
        header = parse_header(head)
        if header is None or len(payload) != place.stored or not checks_out(self._keys[place.pack], header, head, payload):
            raise CorruptError(f"a record of {pack_path(self._directory, place.pack)} is damaged (offset {place.offset})")
        return payload

    def read_if_cached(self, place: Place) -> bytes | None:
        """As `read`, but None where that would wait for the disk."""
        fd = self._fds.get(place.pack)
        if fd is None:
            return None
        data = bytearray(place.stored)
        try:
            count = os.preadv(fd, [data], place.offset, os.RWF_NOWAIT)
        except OSError:  # EAGAIN: not in memory; EOPNOTSUPP: this file system cannot tell
            return None
        return bytes(data) if count == place.stored else None

    def sync(self, number: int) -> None:
        """Bring a pack, whoever writes it, to the disk itself."""
        with self._opened(number) as fd, disk_errors(self._directory):
            os.fdatasync(fd)

    def close(self) -> None:
        with self._lock:
            while self._fds:
                os.close(self._fds.popitem()[1])

    def _pread(self, fd: int, number: int, size: int, offset: int) -> bytes:
        try:
            return os.pread(fd, size, offset)
        except OSError as error:  # a disk that fails
            raise translated(error, pack_path(self._directory, number)) from error

    @contextmanager
    def _opened(self, number: int) -> Iterator[int]:
        fd = self._fds.get(number)
        if fd is not None:
            yield fd
            return
        path = pack_path(self._directory, number)
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise CorruptError(f"{path} is missing, but the index names it") from None
        except OSError as error:
            raise translated(error, path) from error
        with self._lock:
            kept = len(self._fds) < _OPEN_PACKS and self._fds.setdefault(number, fd) == fd
        try:
            yield fd
        finally:
            if not kept:
                os.close(fd)


def _is_near(place: Place, start: Place, end: int) -> bool:
    """Whether to read `place` together with what lies from `start` to the offset `end`."""
    return place.pack == start.pack and place.offset - end <= _GAP and place.offset + place.stored - start.offset <= _SPAN
