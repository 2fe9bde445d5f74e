"""ViewEnvironment: the LMDB environment of a view, which all processes of the machine share.

Its commits are not synced one by one, so a power cut may leave it torn. An environment counts if it was written since this start of
the machine, or if it was synced as its last user closed it. Then a file says so, until the next user comes.
"""

from __future__ import annotations

import fcntl
import os
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import update_wrapper
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeAlias, TypeVar

import lmdb

from tvix_store.backends.objectstore.packed.view_rows import DamagedRowError, opened, sealed
from tvix_store.durable_file import sync_directory
from tvix_store.errors import ClosedError, ExhaustedError, UnavailableError, of_disk

P = ParamSpec("P")
T = TypeVar("T")
E = TypeVar("E", bound="ViewEnvironment")
Txn: TypeAlias = "lmdb.Transaction[bytes]"

_FORMAT = b"tvix-store view 1"
_FILE = "view.mdb"
_USERS = "users.lock"
"""Each process that uses the environment holds this file (flock), shared."""
_SYNCED = "synced"
"""The file that is there while nobody uses the environment, if all of it is on the disk."""
_MAP_SIZE = 1 << 38
"""Address space in bytes. Not disk, not memory: the file grows as it is used."""
_TABLES = (b"contents", b"numbers", b"packs", b"nars", b"meta")


def mending(method: Callable[Concatenate[E, P], T]) -> Callable[Concatenate[E, P], T]:
    """Begin a new environment where this one is damaged, and do it once more."""

    def call(self: E, /, *args: P.args, **kwargs: P.kwargs) -> T:
        used = self.env
        try:
            return method(self, *args, **kwargs)
        except (lmdb.MapFullError, lmdb.DiskError) as error:
            raise ExhaustedError(f"the view in {self.directory} cannot grow: {error}") from None
        except (DamagedRowError, struct.error, lmdb.Error):
            self.begin_anew(used)
            return method(self, *args, **kwargs)

    return update_wrapper(call, method)


class ViewEnvironment:
    """An open environment in `directory`, for the bucket with this `identity`. Safe to use from many threads."""

    def __init__(self, directory: Path, identity: bytes) -> None:
        self.directory = directory
        self.identity = identity
        self._lock = threading.Lock()
        self._closed = False
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._users = os.open(directory / _USERS, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            fcntl.flock(self._users, fcntl.LOCK_SH)
        except OSError as error:
            raise of_disk(error, f"no view can be made in {directory}: {error.strerror}", UnavailableError) from None
        try:
            self.env, self.tables = self._open()
        except BaseException:
            os.close(self._users)
            raise

    def close(self) -> None:
        """The last one who closes it syncs it."""
        with self._lock:
            self._closed = True
            with suppress(OSError, lmdb.Error):
                fcntl.flock(self._users, fcntl.LOCK_EX | fcntl.LOCK_NB)  # which fails where others use it
                self.env.sync(True)
                (self.directory / _SYNCED).touch()
            self.env.close()
            os.close(self._users)

    def begin_anew(self, damaged: lmdb.Environment) -> None:
        """Begin a new one, unless another thread has done so. Other processes keep what they have, until they see the damage."""
        with self._lock:
            if self._closed:
                raise ClosedError("the store is closed")
            if self.env is damaged:
                self._remove()
                self.env, self.tables = self._open()  # the old one stays open: other threads may read from it

    def reading(self) -> Txn:
        return self.env.begin()

    def writing(self) -> Txn:
        return self.env.begin(write=True)

    def meta(self, txn: Txn, name: bytes) -> bytes:
        """A value that is about the view as a whole; empty where there is none."""
        row = txn.get(name, db=self.tables[4])
        return b"" if row is None else opened(name, row)

    def put_meta(self, txn: Txn, name: bytes, value: bytes) -> None:
        txn.put(name, sealed(name, value), db=self.tables[4])

    def _open(self) -> tuple[lmdb.Environment, list[lmdb._Database]]:
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            for _ in range(2):
                try:
                    return self._open_file()
                except (lmdb.Error, DamagedRowError, struct.error) as error:
                    failed = error
                    self._remove()
            raise UnavailableError(f"no view can be made in {self.directory}: {failed}")
        except OSError as error:
            raise of_disk(error, f"no view can be made in {self.directory}: {error.strerror}", UnavailableError) from None

    def _open_file(self) -> tuple[lmdb.Environment, list[lmdb._Database]]:
        is_synced = (self.directory / _SYNCED).exists()
        if is_synced:  # as long as nothing was written
            (self.directory / _SYNCED).unlink(missing_ok=True)
            sync_directory(self.directory)
        env = lmdb.open(
            str(self.directory / _FILE),
            subdir=False,
            map_size=_MAP_SIZE,
            max_dbs=len(_TABLES),
            max_readers=1024,
            sync=False,
            metasync=False,
        )
        try:
            env.reader_check()
            tables = [env.open_db(name) for name in _TABLES]
            with env.begin(write=True) as txn:
                self._claim(txn, tables[4], is_synced=is_synced)
        except BaseException:
            env.close()
            raise
        return env, tables

    def _claim(self, txn: Txn, meta: lmdb._Database, *, is_synced: bool) -> None:
        """See that the environment is a view of this bucket, and whole; or make it one, where it is new."""
        stated, boot = sealed(b"format", _FORMAT + self.identity), sealed(b"boot", boot_id())
        found = txn.get(b"format", db=meta)
        if found is None:
            txn.put(b"format", stated, db=meta)
        elif found != stated or (txn.get(b"boot", db=meta) != boot and not is_synced):
            raise DamagedRowError
        txn.put(b"boot", boot, db=meta)

    def _remove(self) -> None:
        for name in (_FILE, f"{_FILE}-lock"):
            with suppress(FileNotFoundError):
                (self.directory / name).unlink()


def boot_id() -> bytes:
    """Names this start of the machine, from which on its monotonic clock counts."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_bytes().strip().ljust(36)[:36]
    except OSError:
        return os.urandom(36)  # then a view is never older than its process
