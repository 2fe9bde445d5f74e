"""PackWriter: appends records to a pack of its own.

The owner holds an exclusive lock (`flock`) on its pack. The next writer takes over a pack that is not full and whose owner is gone.
It first cuts off the bytes that the last owner had not committed to the index: nobody was told that these are stored.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from tvix_store.backends.local.disk import disk_errors, new_file, unfinished_name
from tvix_store.backends.local.durability import Durability
from tvix_store.backends.local.file_lock import take
from tvix_store.backends.local.packs import MAGIC, PREFIX_SIZE, Place, pack_numbers, pack_path, read_key
from tvix_store.backends.local.records import HEADER_SIZE, KEY_SIZE, Buffer, Kind, NewRecord, mark
from tvix_store.errors import CorruptError, UnavailableError

_FLUSH_SIZE = 8 << 20
_IOV_MAX = 1024
"""Buffers that Linux takes in one call."""
_LOOKED_AT = 64
"""How many of the newest packs to try when looking for one to reuse. It must exceed the number of concurrent writers."""


class PackWriter:
    """Appends records to a pack of its own. Used by one thread at a time."""

    def __init__(
        self,
        directory: Path,
        committed_size: Callable[[int], int],
        highest_number: Callable[[], int],
        seal_size: int,
        durability: Durability,
    ) -> None:
        self._directory = directory
        self._durability = durability
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
                    self._durability.cut(self._fd, self.size)

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
            self._durability.sync_data(self._fd)
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
        if not take(fd, fcntl.LOCK_EX):
            os.close(fd)
            return False
        try:
            size = self._committed_size(number)
            # No row: not one of ours, or damaged so that its records are unknown. Whatever it holds may still be mended.
            if not PREFIX_SIZE <= size < self._seal_size or os.fstat(fd).st_size < size:
                os.close(fd)
                return False
            key = read_key(fd, path)
            self._durability.cut(fd, size)
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
                self._durability.sync_file(fd)
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
            self._durability.sync_names(self._directory)
            self._use(fd, key, number, PREFIX_SIZE)
            return

    def _use(self, fd: int, key: bytes, number: int, size: int) -> None:
        self._fd, self._key, self.number, self.size = fd, key, number, size
        self._path = str(pack_path(self._directory, number))
        self._kept = self._flushed = size
        self._synced = 0  # what another owner has written may not be on the disk
