"""The mark of an index that a power cut could tear: `<store>/index-unsynced`.

An LMDB commit is visible to all processes and survives their death, but is on the disk only after a sync; after a power cut without
one, the file may hold any mixture of pages. So the mark, holding the id of the running kernel's boot, is on the disk before
the first unsynced commit, and goes when a sync has covered all. A mark of another boot means: rebuild. Syncing each commit
instead would cost two waits for the disk a call (0.2 ms each on our machine, 5 to 20 ms on a busy one).
"""

from __future__ import annotations

import os
from contextlib import suppress
from functools import cache
from pathlib import Path

from tvix_store.backends.local.disk import disk_errors, open_or_create, sync_file, write_file
from tvix_store.errors import UnavailableError

FILE = "index-unsynced"


@cache
def this_boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


_POISON = "a sync failed"


class UnsyncedMark:
    """Set and cleared inside write transactions of the index, so never by two processes at once."""

    def __init__(self, store: Path) -> None:
        self._store = store
        self._path = store / FILE

    def is_set(self) -> bool:
        return self._path.exists()

    def set(self) -> None:
        """Set the mark before a write to the index.

        Raises:
            UnavailableError: the mark is poisoned.
        """
        with disk_errors(self._store):
            try:
                if _read(self._path) == this_boot():
                    return
            except FileNotFoundError:
                write_file(self._path, this_boot().encode())
                return
        raise UnavailableError(
            f"the disk failed to keep what was written to {self._store}; "
            "stop all that use the store: it is repaired when it is opened again"
        )

    def poison(self) -> None:
        """A sync failed, so nobody knows what is on the disk: let no process write, and the next to open the store look.

        Linux tells of a failed write once, and takes the pages for written from then on.
        """
        # In place: a disk that fails may not sync, and the other processes are to see it all the same. A power cut leaves another
        # text than the id of a boot, which means the same.
        try:
            fd = open_or_create(self._path, os.O_TRUNC)
        except OSError:  # another user has made the file
            with suppress(OSError):
                write_file(self._path, _POISON.encode())
            return
        with suppress(OSError):
            os.write(fd, _POISON.encode())
            os.fsync(fd)
        os.close(fd)

    def clear(self) -> None:
        """Take the mark away, whatever it says."""
        with disk_errors(self._store):
            self._path.unlink(missing_ok=True)
            sync_file(self._store)

    def index_may_be_torn(self) -> bool:
        try:
            return _read(self._path) != this_boot()
        except FileNotFoundError:
            return False


def _read(path: Path) -> str:
    """Each commit does this: a file object takes 20 µs more."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, 4096).decode(errors="replace")
    finally:
        os.close(fd)


class NoMark(UnsyncedMark):
    """For an index that is thrown away if it is not finished."""

    def __init__(self) -> None:
        super().__init__(Path())

    def set(self) -> None:
        pass
