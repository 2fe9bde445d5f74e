"""The mark of an index that a power cut could tear: `<store>/index-unsynced`.

An LMDB commit is visible to all processes and survives their death, but is on the disk only after a sync; after a power cut without
one, the file may hold any mixture of pages. So the mark, holding the id of the running kernel's boot, is on the disk before
the first unsynced commit, and goes when a sync has covered all. A mark of another boot means: rebuild. Syncing each commit
instead would cost two waits for the disk a call (0.2 ms each on our machine, 5 to 20 ms on a busy one).
"""

from __future__ import annotations

from pathlib import Path

from tvix_store.backends.local.disk import disk_errors, sync_file, write_file

FILE = "index-unsynced"


def this_boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


class UnsyncedMark:
    """Set and cleared inside write transactions of the index, so never by two processes at once."""

    def __init__(self, store: Path) -> None:
        self._store = store
        self._path = store / FILE

    def is_set(self) -> bool:
        return self._path.exists()

    def set(self) -> None:
        if not self.is_set():
            with disk_errors(self._store):
                write_file(self._path, this_boot().encode())

    def clear(self) -> None:
        with disk_errors(self._store):
            self._path.unlink(missing_ok=True)
            sync_file(self._store)

    def index_may_be_torn(self) -> bool:
        try:
            return self._path.read_text() != this_boot()
        except FileNotFoundError:
            return False
