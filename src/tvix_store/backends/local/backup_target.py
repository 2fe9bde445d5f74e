"""BackupTarget: a directory that becomes a copy of one store directory. At any moment it is a store: the old copy or the new."""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

from tvix_store.backends.local import settings
from tvix_store.backends.local.backup_packs import PackCopy, check_same_packs
from tvix_store.backends.local.backup_source import copy_state
from tvix_store.backends.local.disk import disk_errors, make_directory, open_or_create
from tvix_store.backends.local.durability import Durability
from tvix_store.backends.local.environment import lock_file
from tvix_store.backends.local.index import Index
from tvix_store.backends.local.index_damage import DamageMark
from tvix_store.backends.local.ledger import HIGHEST_PACK
from tvix_store.backends.local.open_index import new_index_file, open_index, publish, remove_other_indexes
from tvix_store.backends.local.packs import pack_path
from tvix_store.backends.local.seal import is_sealed, seal
from tvix_store.backends.local.store_lock import StoreLock
from tvix_store.errors import InvalidError, UnavailableError

BEGUN = "backup-begun"
"""A file that is there until the first backup is complete: until then, there is no store."""
_TOKENS = "tokens.json"
_OF_NOBODY = ("lost+found", "lock", "sync-failed", BEGUN)
"""What the names of files begin with that a directory may have, and yet is empty."""
_log = logging.getLogger(__name__)


class BackupTarget:
    """The copy `directory` of the store `source`. It is held alone until it is closed."""

    def __init__(self, source: Path, directory: Path, durability: Durability) -> None:
        """Hold the directory, which is made where it does not exist.

        Raises:
            InvalidError: it holds something else than a backup of `source`.
            UnavailableError: it is in use.
        """
        self._source = source
        self._durability = durability
        self.directory = directory
        self._packs = directory / "packs"
        self._held: dict[int, int] = {}
        """How many bytes of each pack the last backup has."""
        self.sizes: dict[int, int] = {}
        """How many bytes of each pack the new one has."""
        self._highest_pack = 0
        with disk_errors(directory):
            is_store = self._is_backup()
            self._lock: StoreLock | None = self._alone()
            try:
                if is_store:
                    self._look()
                else:
                    self._begin()
                self._file = new_index_file(directory)
            except BaseException:
                self._let_go()
                raise
        self._is_switched = False
        self._copy = PackCopy(self._packs, source / "packs", self._held, durability)

    def close(self) -> None:
        """Let it go. Where it was not switched, the new index goes too."""
        if not self._is_switched:
            for path in (self._file, lock_file(self._file)):
                path.unlink(missing_ok=True)
        self._let_go()

    def take_state(self, *, read_only: bool) -> None:
        """Copy the index of the store, as of now: `sizes` says what is to be copied for it.

        Raises:
            InvalidError: the backup has more than the store.
            StoreError: as `copy_state`.
        """
        copy_state(self._source, self._file, self._durability, read_only=read_only)
        with closing(self._opened()) as index, index.reading() as txn:
            self.sizes = index.committed_packs(txn)
            self._highest_pack = index.counter(txn, HIGHEST_PACK)
        for number, size in self._held.items():
            if self.sizes.get(number, size) < size:
                raise InvalidError(
                    f"{self.directory} has more of {number:08x}.pack than {self._source}, which has gone back to an older state; "
                    "make the backup in an empty directory"
                )

    def there(self) -> int:
        """How many bytes of packs need not be copied."""
        return sum(self._copy.there(number, size) for number, size in self.sizes.items())

    @property
    def damaged(self) -> int:
        """Bytes of the packs that were copied, and are damaged in the store."""
        return self._copy.damaged

    def copy_packs(self) -> Iterator[int]:
        """Copy what the packs lack. Gives the bytes of each step."""
        for number, size in sorted(self.sizes.items()):
            there = self._copy.there(number, size)
            if there < size:
                yield from self._copy.bring(number, size, there)

    def switch(self) -> None:
        """Make the new state the one of the directory. All packs are on the disk."""
        with disk_errors(self.directory):
            self._durability.sync_names(self._packs)
            self._copy_file(_TOKENS)
            self._is_switched = True  # from now on, the index may be the one
            seal(self.directory, self._file, self._highest_pack, self._durability)
            self._copy_file(settings.FILE)  # with it, a first backup is a store
            self._durability.sync_names(self.directory)
            if (self.directory / BEGUN).exists():
                (self.directory / BEGUN).unlink()
                self._durability.sync_names(self.directory)

    def clean(self) -> None:
        """Remove what the new state does not name."""
        named = {pack_path(self._packs, number) for number in self.sizes}
        with disk_errors(self.directory):
            remove_other_indexes(self._file)
            for path in self._packs.iterdir():
                if path not in named:
                    path.unlink()

    def _is_backup(self) -> bool:
        """Whether there is a backup already; if not, the directory is made, or is empty, or an interrupted first backup."""
        directory = self.directory
        if not directory.exists():
            directory.parent.mkdir(parents=True, exist_ok=True)
            directory.mkdir(mode=0o700)
            its = self._source.stat()
            with suppress(PermissionError):  # only root gives files away
                os.chown(directory, its.st_uid, its.st_gid)
            directory.chmod(stat.S_IMODE(its.st_mode))
        if (directory / settings.FILE).exists():
            mine, wanted = settings.load(directory, {}), settings.load(self._source, {})
            if mine != (wanted if mine.store_dir else replace(wanted, store_dir=None)):
                raise InvalidError(f"{directory} is no backup of {self._source}: it is a store with other settings")
            return True
        if not (directory / BEGUN).exists() and not all(name.startswith(_OF_NOBODY) for name in os.listdir(directory)):
            raise InvalidError(f"{directory} is neither empty nor a backup: it has no {settings.FILE}")
        return False

    def _begin(self) -> None:
        os.close(open_or_create(self.directory / BEGUN))
        self._durability.sync_names(self.directory)
        make_directory(self._packs)
        make_directory(self.directory / "index")
        self._durability.sync_names(self.directory)
        self._durability.heal()

    def _alone(self) -> StoreLock:
        lock = StoreLock(self.directory)
        if not lock.take_alone():
            lock.close()
            raise self._is_used()
        return lock

    def _let_go(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _is_used(self) -> UnavailableError:
        return UnavailableError(f"{self.directory} is in use, by another backup or a program that has it open")

    def _look(self) -> None:
        """See what the last backup has, and seal it: it may have been opened and written to."""
        was_sealed = is_sealed(self.directory)
        self._let_go()  # what opens the index takes it
        self._lock, index = lock, _ = open_index(self.directory, self._durability, DamageMark(self.directory))
        with closing(index):
            if not lock.take_alone():
                raise self._is_used()
            with index.reading() as txn:
                self._held = index.committed_packs(txn)
                highest = index.counter(txn, HIGHEST_PACK)
            check_same_packs(self._packs, self._source / "packs", self._held, may_lack=was_sealed)
            sealed = is_sealed(self.directory)
            if not sealed:
                publish(index, self.directory, self._durability)
        if not sealed:
            seal(self.directory, index.file, highest, self._durability)

    def _opened(self) -> Index:
        return Index(self._file, self._durability, DamageMark(self.directory))

    def _copy_file(self, name: str) -> None:
        """Copy a small file of the store, with its mode, and bring it to the disk itself."""
        path = self.directory / name
        try:
            fd = os.open(self._source / name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            path.unlink(missing_ok=True)
            return
        except PermissionError:
            _log.warning("this user may not read %s: it is not in the backup", self._source / name)
            return
        with os.fdopen(fd, "rb") as file:
            mode, data = stat.S_IMODE(os.fstat(fd).st_mode) & 0o666, file.read()
        self._durability.replace_file(path, data, mode)
