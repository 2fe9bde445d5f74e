"""RecentRecords: a RecordService in one SQLite file of bounded size, which forgets what was put longest ago.

It is for links of NARs beside a store that has no place for records. A daemon's workers share the file, and so do daemons. Records
are not synced: after a power cut, the file may be damaged. One that is, or was removed, is begun anew. There is no WAL: where one
process removes a file, the shared memory of a WAL would kill (SIGBUS) those that still use it.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import sqlite3
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TypeVar

from tvix_store.errors import DeniedError, DiskFullError, UnavailableError
from tvix_store.services.records import Changes, check_records

T = TypeVar("T")

MAX_SIZE = 32 << 20
"""Bytes of the file: room for the links of some 80,000 NARs."""
_PAGE = 4096
_PATIENCE = 10.0
"""Seconds for which one process waits while another writes."""
_TRIES = 4
"""With a file that another process damages, or mends, meanwhile."""
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_READONLY)
"""The last one says that the file was removed while it was used, as by a process that begins it anew."""
_SCHEMA = "CREATE TABLE IF NOT EXISTS records (position INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, value BLOB NOT NULL)"
_PUT = "INSERT OR REPLACE INTO records (key, value) VALUES (?, ?)"
_GET = "SELECT value FROM records WHERE key = ?"
_DELETE = "DELETE FROM records WHERE key = ?"
_LIST = "SELECT key, value FROM records WHERE key >= ? ORDER BY key LIMIT 256"
_FORGET = (
    "DELETE FROM records WHERE position IN"
    " (SELECT position FROM records ORDER BY position LIMIT (SELECT 1 + count(*) / 8 FROM records))"
)


class RecentRecords:
    """The records in the file at `path`, which is made where there is none. Call `close` when done.

    Raises:
        DeniedError, UnavailableError: the file cannot be used.
    """

    def __init__(self, path: Path, max_size: int = MAX_SIZE) -> None:
        self._path = path
        self._max_pages = max_size // _PAGE
        self._thread = ThreadPoolExecutor(1, "recent-records")  # SQLite's connections belong to one
        self._connection: sqlite3.Connection | None = None
        self._inode = 0

    async def open(self) -> None:
        """Make sure that the file can be used."""
        await self._in_thread(lambda connection: connection.execute(_GET, (b"",)).fetchone())

    async def get(self, key: bytes) -> bytes | None:
        row = await self._in_thread(lambda connection: connection.execute(_GET, (key,)).fetchone())
        return None if row is None else row[0]

    async def put(self, records: Mapping[bytes, bytes], *, durable: bool = True) -> None:
        """As `RecordService.put`, but what is put may be forgotten: by a power cut, or when the file is full.

        Raises:
            ExhaustedError: the disk is full, or the records are larger than the file may be.
        """
        check_records(records)
        if records:
            await self._in_thread(lambda connection: _put(connection, records))

    async def delete(self, keys: Collection[bytes]) -> None:
        """As `RecordService.delete`; a power cut may bring them back."""

        def work(connection: sqlite3.Connection) -> None:
            with connection:
                connection.executemany(_DELETE, [(key,) for key in keys])

        if keys:
            await self._in_thread(work)

    async def exchange(self, changes: Changes) -> int:
        check_records({key: new for key, (_, new) in changes.items() if new is not None})
        return await self._in_thread(lambda connection: _exchange(connection, changes)) if changes else 0

    async def list(self, prefix: bytes = b"") -> AsyncIterator[tuple[bytes, bytes]]:
        start = prefix
        while rows := await self._in_thread(partial(_page, start)):
            for key, value in rows:
                if not key.startswith(prefix):
                    return
                yield key, value
            start = rows[-1][0] + b"\0"

    async def close(self) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, self._disconnect)
        self._thread.shutdown()

    async def _in_thread(self, work: Callable[[sqlite3.Connection], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._done, work)

    def _done(self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            for _ in range(_TRIES - 1):
                try:
                    return work(self._connected())
                except sqlite3.DatabaseError as error:
                    if not _is(error, *_DAMAGED):
                        raise
                self._remove()
            return work(self._connected())
        except sqlite3.Error as error:
            if _is(error, sqlite3.SQLITE_FULL):
                raise DiskFullError(f"cannot write to {self._path}: {error}; free some space and try again") from None
            raise UnavailableError(f"cannot use {self._path}: {error}") from None
        except PermissionError as error:
            raise DeniedError(f"cannot use {self._path}: {error.strerror}") from None
        except OSError as error:
            raise UnavailableError(f"cannot use {self._path}: {error.strerror}") from None

    def _connected(self) -> sqlite3.Connection:
        """The connection to the file that is there now."""
        if self._connection is not None:
            with suppress(FileNotFoundError):
                if self._path.stat().st_ino == self._inode:
                    return self._connection
            self._disconnect()
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._alone():
            connection = sqlite3.connect(self._path, _PATIENCE)
            try:
                for setting in ("journal_mode = TRUNCATE", "synchronous = OFF", f"max_page_count = {self._max_pages}"):
                    connection.execute(f"PRAGMA {setting}")
                with connection:
                    connection.execute(_SCHEMA)
                self._inode = self._path.stat().st_ino
            except BaseException:
                connection.close()
                raise
        self._connection = connection
        return connection

    def _remove(self) -> None:
        """Remove a damaged file, unless another process has done so."""
        with self._alone():
            self._disconnect()
            with suppress(sqlite3.Error), closing(sqlite3.connect(self._path, _PATIENCE)) as connection:
                if connection.execute("PRAGMA quick_check(1)").fetchone() == ("ok",):
                    return
            for suffix in ("", "-wal", "-shm"):
                Path(f"{self._path}{suffix}").unlink(missing_ok=True)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep other processes from opening the file, and from removing it."""
        fd = os.open(f"{self._path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _page(start: bytes, connection: sqlite3.Connection) -> Sequence[tuple[bytes, bytes]]:
    """The next records, from the key `start` on."""
    return connection.execute(_LIST, (start,)).fetchall()


def _put(connection: sqlite3.Connection, records: Mapping[bytes, bytes]) -> None:
    while True:
        try:
            with connection:
                connection.executemany(_PUT, records.items())
            return
        except sqlite3.OperationalError as error:
            if not _is(error, sqlite3.SQLITE_FULL):
                raise
            with connection:
                if connection.execute(_FORGET).rowcount == 0:
                    raise


def _exchange(connection: sqlite3.Connection, changes: Changes) -> int:
    done = 0
    with connection:
        connection.execute("BEGIN IMMEDIATE")
        for key, (expected, new) in changes.items():
            if connection.execute(_GET, (key,)).fetchone() == (None if expected is None else (expected,)):
                connection.execute(*((_DELETE, (key,)) if new is None else (_PUT, (key, new))))
                done += 1
    return done


def _is(error: sqlite3.Error, *codes: int) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in codes
