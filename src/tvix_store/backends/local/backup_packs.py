"""The packs of a backup: what is there already, and the copying of the rest.

A pack only grows, and bytes that a state of its store names never change. So a pack in the backup is the beginning of the pack of
the same number in the store, or the backup is one of another store.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from pathlib import Path

from tvix_store.backends.local.disk import disk_errors, new_file, unfinished_name
from tvix_store.backends.local.durability import Durability
from tvix_store.backends.local.pack_scan import PackScan
from tvix_store.backends.local.packs import PREFIX_SIZE, pack_path
from tvix_store.backends.local.progress import Progress
from tvix_store.backends.local.records import HEADER_SIZE
from tvix_store.errors import CorruptError, InvalidError, UnavailableError

_PIECE = 16 << 20
"""Bytes that are copied with one call."""
_COMPARED = 64 << 10
"""Bytes before the end of a pack in the backup that must be the same in the store, beside the pack's key."""
_log = logging.getLogger(__name__)


def check_same_packs(packs: Path, of: Path, held: Mapping[int, int], *, may_lack: bool) -> None:
    """Refuse a backup whose packs are not the beginnings of those in `of`. `held` says how many bytes of each it holds.

    Where the store `may_lack` packs, its collector has removed them; but not all.

    Raises:
        InvalidError: it is of another store, or others have written to it.
    """
    known = 0
    for number, named in held.items():
        mine, its = pack_path(packs, number), pack_path(of, number)
        size = min(named, _size(mine))
        if size < PREFIX_SIZE:
            continue  # it is lost, and copied anew
        if its.exists() or not may_lack:
            if not is_beginning(mine, its, size):
                raise InvalidError(
                    f"{packs.parent} is no backup of {of.parent}, or others have written to it: {mine.name} is another one; "
                    "make the backup in an empty directory"
                )
            known += 1
    if not known and any(size > PREFIX_SIZE for size in held.values()):
        raise InvalidError(
            f"{packs.parent} has no pack of {of.parent}, so it may be a backup of another store; "
            "make the backup in an empty directory"
        )


def is_beginning(mine: Path, its: Path, size: int) -> bool:
    """Whether the first `size` bytes of `mine` are those of `its`, as far as the key and the last bytes tell."""
    ends = ((PREFIX_SIZE, 0), (_COMPARED, max(size - _COMPARED, 0)))
    with disk_errors(mine):
        try:
            with mine.open("rb") as one, its.open("rb") as other:
                if os.fstat(other.fileno()).st_size < size:
                    return False
                return all(
                    os.pread(one.fileno(), min(count, size - at), at) == os.pread(other.fileno(), min(count, size - at), at)
                    for count, at in ends
                )
        except FileNotFoundError:
            return False


class PackCopy:
    """Brings the packs of a backup to the sizes that a state of the store names. `held` says what the backup holds for certain."""

    def __init__(self, packs: Path, of: Path, held: Mapping[int, int], durability: Durability) -> None:
        self._packs = packs
        self._of = of
        self._held = held
        self._durability = durability
        self.damaged = 0
        """Bytes of packs in the store that are no entries."""

    def there(self, number: int, size: int) -> int:
        """How many bytes of a pack need not be copied, of the `size` that the store has.

        What an interrupted backup has appended counts only where it has made a new pack: it was complete before it got its name.
        """
        path = pack_path(self._packs, number)
        now = _size(path)
        if number in self._held:
            return min(self._held[number], now)
        return now if now <= size and now > PREFIX_SIZE and is_beginning(path, pack_path(self._of, number), now) else 0

    def bring(self, number: int, size: int, there: int) -> Iterator[int]:
        """Copy a pack from the byte `there` up to `size`, and bring it to the disk itself. Gives the bytes of each step.

        Raises:
            UnavailableError: the store has removed the pack.
            CorruptError: the pack is shorter than the store says.
            DiskFullError: the disk of the backup is full.
        """
        source = self._opened(number, size)
        try:
            path = pack_path(self._packs, number)
            if there >= PREFIX_SIZE:
                with disk_errors(path):
                    target = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
                try:
                    if os.fstat(target).st_size > there:
                        self._durability.cut(target, there)
                    yield from self._append(source, target, there, size)
                    self._check(path, number, there, size)
                finally:
                    os.close(target)
                return
            unfinished = unfinished_name(path)
            with disk_errors(path):
                target = new_file(unfinished)
            try:
                yield from self._append(source, target, 0, size)
                self._check(unfinished, number, PREFIX_SIZE, size)
                with disk_errors(path):
                    unfinished.rename(path)
            finally:
                os.close(target)
                with suppress(FileNotFoundError):
                    unfinished.unlink()
        finally:
            os.close(source)

    def _check(self, copy: Path, number: int, at: int, size: int) -> None:
        """See that the entries of a pack from `at` on follow each other up to `size`, as they are on the disk now.

        Raises:
            CorruptError: they do not, and do in the store.
        """
        holes = _holes(copy, number, at, size)
        if not holes:
            return
        original = pack_path(self._of, number)
        if _holes(original, number, at, size) != holes:
            raise CorruptError(f"the disk has not kept what was copied to {copy}; try again, on another disk")
        self.damaged += holes
        _log.warning("%s has %d damaged bytes, which are copied as they are", original, holes)

    def _opened(self, number: int, size: int) -> int:
        path = pack_path(self._of, number)
        with disk_errors(path):
            try:
                fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                raise UnavailableError(f"{path} went while the backup was made; try again") from None
            if os.fstat(fd).st_size >= size:
                return fd
            os.close(fd)
        raise CorruptError(f"{path} is cut short; mend the store before a backup is made")

    def _append(self, source: int, target: int, at: int, size: int) -> Iterator[int]:
        os.lseek(target, at, os.SEEK_SET)
        while at < size:
            with disk_errors(self._packs):
                count = os.sendfile(target, source, at, min(_PIECE, size - at))
            if not count:
                raise CorruptError(f"a pack in {self._of} was cut while it was copied; mend the store before a backup is made")
            at += count
            yield count
        self._durability.sync_file(target)


def _holes(path: Path, number: int, at: int, size: int) -> int:
    """How many bytes of a pack, from `at` to `size`, belong to no entry."""
    with disk_errors(path), closing(PackScan(path, number, at, is_live=True)) as scan:
        whole = sum(HEADER_SIZE + entry.stored for entry in scan.entries(Progress(f"checking {path.name}", size - at), size))
    return size - at - whole


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
