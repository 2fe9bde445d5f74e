"""Durability: the one owner of syncs. Nothing else in the local store may call fsync, fdatasync or sync a database.

Linux tells of a failed write-back once, and takes the pages for written from then on. So a sync that failed may not be tried
again. Whatever failed to sync, the store is poisoned: the file `<store>/sync-failed` stops the writes of all processes. The next
process that has the store alone goes back to the last checkpoint, and replays the packs from there.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from time import monotonic

from tvix_store.backends.local.disk import disk_errors, new_file, open_or_create, unfinished_name
from tvix_store.errors import StoreError, UnavailableError
from tvix_store.telemetry import meters

FILE = "sync-failed"
_log = logging.getLogger(__name__)


class SyncFailedError(UnavailableError):
    """A sync failed: what was written may be lost, though it reads well from memory. Nothing may be built on it."""


class Durability:
    """Brings files, names and the index of one store to the disk itself, and remembers where that failed.

    Its methods may be called from any thread. Each sync raises SyncFailedError where it fails, now or before.
    """

    def __init__(self, store: Path) -> None:
        self._store = store
        self._path = store / FILE
        self._text = str(self._path)

    def check(self) -> None:
        """Raise SyncFailedError if a sync of the store has failed, in whatever process. Each commit calls this: 1 µs."""
        try:
            os.stat(self._text)
        except FileNotFoundError:
            return
        except OSError:  # the disk does not even tell
            pass
        raise SyncFailedError(
            f"the disk failed to keep what was written to {self._store}; "
            "stop all that use the store: it is repaired when it is opened again"
        )

    def is_poisoned(self) -> bool:
        return self._path.exists()

    def sync_data(self, fd: int) -> None:
        """Bring the content of an open file to the disk itself."""
        self._sync(lambda: self._fdatasync(fd))

    def sync_file(self, fd: int) -> None:
        """Bring the content and the properties of an open file to the disk itself."""
        self._sync(lambda: self._fsync(fd))

    def sync_names(self, directory: Path) -> None:
        """Bring the names in a directory to the disk itself."""
        with disk_errors(directory):
            fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self.sync_file(fd)
        finally:
            os.close(fd)

    def sync_index(self, path: Path, sync: Callable[[], None]) -> None:
        """Bring a database to the disk itself by its own `sync`."""
        self._sync(lambda: self._sync_database(path, sync))

    def replace_file(self, path: Path, data: bytes, mode: int | None = None) -> None:
        """Create or replace a small file. After a power cut, it has either its old or its new content.

        Its mode is that of its directory, unless another one is given.
        """
        with disk_errors(self._store):
            unfinished = unfinished_name(path)
            fd = new_file(unfinished)
            try:
                if mode is not None:
                    os.fchmod(fd, mode)
                with os.fdopen(fd, "wb", closefd=False) as file:
                    file.write(data)
                self.sync_file(fd)
                os.rename(unfinished, path)
            except BaseException:
                unfinished.unlink(missing_ok=True)
                raise
            finally:
                os.close(fd)
        self.sync_names(path.parent)

    def cut(self, fd: int, size: int) -> None:
        """Cut an open file; this is not synced."""
        os.ftruncate(fd, size)

    def heal(self) -> None:
        """Forget that a sync failed: the caller, alone, has made sure of all that is there."""
        with disk_errors(self._store):
            if self.is_poisoned():
                self._path.unlink(missing_ok=True)
                self.sync_names(self._store)

    def _sync(self, sync: Callable[[], None]) -> None:
        begun = monotonic()
        try:
            with disk_errors(self._store):
                sync()
        except StoreError as error:
            _log.error("a sync failed, so nothing more is written until the store is opened again: %s", error)
            self._poison()
            raise SyncFailedError(str(error)) from error
        meters.SYNC_SECONDS.of().observe_in_any_thread(monotonic() - begun)

    def _poison(self) -> None:
        # Not synced: a disk that fails may not sync either, and a power cut leaves another boot, which means the same.
        with suppress(OSError):
            os.close(open_or_create(self._path))

    # The calls themselves, which the tests' disk replaces.

    def _fdatasync(self, fd: int) -> None:
        os.fdatasync(fd)

    def _fsync(self, fd: int) -> None:
        os.fsync(fd)

    def _sync_database(self, _path: Path, sync: Callable[[], None]) -> None:
        sync()


class NoDurability(Durability):
    """That of files which are thrown away, such as a private copy of the index: nothing of them needs to reach the disk."""

    def check(self) -> None:
        pass

    def is_poisoned(self) -> bool:
        return False

    def _fdatasync(self, fd: int) -> None:
        pass

    def _fsync(self, fd: int) -> None:
        pass

    def _sync_database(self, _path: Path, sync: Callable[[], None]) -> None:
        pass
