"""Environment: rows in the tables of one LMDB environment, each with a check, and the errors of LMDB as ours.

LMDB commits are not synced one by one: after a power cut the index goes back to its last checkpoint (see `checkpoint.py`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext, suppress
from itertools import islice
from operator import lt
from pathlib import Path
from typing import TypeAlias
from zlib import crc32

import lmdb

from tvix_store.backends.local.checkpoint import Meta, newest_meta
from tvix_store.backends.local.disk import disk_errors, make_directory, new_file, open_or_create
from tvix_store.backends.local.durability import Durability
from tvix_store.backends.local.index_damage import DamageMark
from tvix_store.backends.local.progress import Progress
from tvix_store.backends.local.rows import RESIDUE, Table
from tvix_store.errors import CorruptError, DiskFullError, ExhaustedError, StoreError, UnavailableError
from tvix_store.services.batches import batched

MAP_SIZE = 1 << 38
"""Address space for the index in bytes (256 GiB: some two billion chunks). Not disk, not memory: the file grows as it is used."""
_MAX_READERS = 1024
_NEARLY_FULL = 4 << 20
"""Bytes left on a disk, fewer than which may be the cause of a write that failed half-way."""
_LOCK_FILE_SIZE = 17 * 4096
"""Bytes; LMDB needs 64 for each reader, and 128."""
_ROWS_A_TRANSACTION = 10_000

_OF_DAMAGE = (
    lmdb.BadDbiError,
    lmdb.BadTxnError,
    lmdb.CorruptedError,
    lmdb.CursorFullError,
    lmdb.IncompatibleError,
    lmdb.InvalidError,
    lmdb.PageFullError,
    lmdb.PageNotFoundError,
    lmdb.VersionMismatchError,
)
"""What LMDB says of damaged pages. We use no transaction that has ended, so BadTxnError is of pages too: flips in the head of a
root page have shown it."""

Txn: TypeAlias = "lmdb.Transaction[bytes]"


def lock_file(file: Path) -> Path:
    """The file beside an environment in which LMDB keeps its readers."""
    return file.with_name(f"{file.name}-lock")


def _create_files(file: Path) -> None:
    """Create the files of an environment, with the owner and mode that they should have."""
    with disk_errors(file):
        make_directory(file.parent)
        # LMDB maps this file, and would make it sparse: on a full disk, the first access kills the process (SIGBUS).
        fd = open_or_create(lock_file(file))
        try:
            os.posix_fallocate(fd, 0, _LOCK_FILE_SIZE)
        finally:
            os.close(fd)
        if not file.exists():
            os.close(open_or_create(file))  # LMDB takes an empty file for a new environment


class Environment:
    """Transactions on checked rows. Readers take no locks; one transaction at a time writes, across all processes."""

    def __init__(self, file: Path, names: Sequence[bytes], durability: Durability, damage: DamageMark) -> None:
        self.file = file
        self._durability = durability
        self._damage = damage
        self.guard: Callable[[], AbstractContextManager[object]] = nullcontext
        """Entered around each commit. A new index, which nobody has begun to rely on, needs none."""
        self.rows_put = 0
        """By this process."""
        _create_files(file)
        with self._errors():
            self._env = lmdb.open(
                str(file),
                subdir=False,
                map_size=MAP_SIZE,
                max_dbs=len(names),
                max_readers=_MAX_READERS,
                sync=False,
                metasync=False,
                readahead=False,
            )
            self._env.reader_check()
            self.tables = [Table(name, self._env.open_db(name)) for name in names]
            if self._env.stat()["entries"] > len(names):
                self._env.close()
                raise self._damaged("the name of a table is not right")

    def table(self, *names: bytes) -> list[Table]:
        """The tables with these names."""
        by_name = {table.name: table for table in self.tables}
        return [by_name[name] for name in names]

    @property
    def is_damaged(self) -> bool:
        """Whether damage was found, by any process, that is not mended yet."""
        return self._damage.is_set()

    @property
    def is_empty(self) -> bool:
        with self.reading() as txn:
            return not any(self.rows(txn, table) for table in self.tables)

    @contextmanager
    def reading(self) -> Iterator[Txn]:
        with self._errors(), self._env.begin() as txn:
            yield txn

    @contextmanager
    def writing(self) -> Iterator[Txn]:
        """A write transaction: committed at the end, undone on any error."""
        with self._errors(), self.guard(), self._env.begin(write=True) as txn:
            yield txn

    def pin(self) -> tuple[Txn, Meta]:
        """A read transaction of the last commit, which keeps its pages as they are, and its meta page. Waits for other writers."""
        with self._errors(), disk_errors(self.file):
            self._env.reader_check()
            writer = self._env.begin(write=True)  # so that nobody commits meanwhile
            try:
                pin, meta = self._env.begin(), newest_meta(self.file)
            finally:
                writer.abort()
        if meta is None or meta.transaction != pin.id():
            pin.abort()
            raise self._damaged("it has lost its root")
        return pin, meta

    def sync(self) -> None:
        """Bring every commit so far to the disk itself."""

        def sync() -> None:
            with self._errors():
                self._env.sync(True)

        self._durability.sync_index(self.file, sync)

    def file_size(self) -> int:
        """Bytes of the file that were ever used."""
        return (int(self._env.info()["last_pgno"]) + 1) * int(self._env.stat()["psize"])

    def last_transaction(self) -> int:
        """The number of the last commit, by any process."""
        return int(self._env.info()["last_txnid"])

    def close(self) -> None:
        self._env.close()

    def pages(self) -> tuple[int, int]:
        """How many pages the file has, and how many of them are in use."""
        with self.reading() as txn:
            tables = (self._env.stat(), *(txn.stat(table.handle) for table in self.tables))
        used = sum(table[kind] for table in tables for kind in ("branch_pages", "leaf_pages", "overflow_pages"))
        return self._env.info()["last_pgno"] + 1, used

    def copy_to(self, file: Path, durability: Durability | None = None) -> None:
        """Write a copy without free pages into a new file, and bring it to the disk itself: by the `durability` of its store."""
        with disk_errors(file):
            fd = new_file(file)
            try:
                with self._errors():
                    self._env.copyfd(fd, compact=True)
                (durability or self._durability).sync_file(fd)
            finally:
                os.close(fd)

    def look_at(self, table: Table, behind: bytes | None, limit: int) -> tuple[int, bytes | None]:
        """Look whether up to `limit` rows, behind a key or from the start, are whole, in order, and found by their keys.

        How many there were, and the last key; None where no more rows follow.

        Raises:
            CorruptError: a page is damaged, and that was told. Of single rows it is told, and nothing raised.
        """
        with self.reading() as txn, txn.cursor(table.handle) as cursor:
            last, count = behind, 0
            found = cursor.set_range(behind or b"") and (cursor.key() != behind or cursor.next())
            while found and count < limit:
                key, row = cursor.item()
                if last is not None and key <= last:
                    raise self._damaged(f"the rows of {table.name.decode()} are not in order")
                if txn.get(key, db=table.handle) != row:
                    raise self._damaged(f"a row of {table.name.decode()} is not found by its key")
                self._is_whole(table, key, row)
                last, count = key, count + 1
                found = cursor.next()
            return count, last if found else None

    def rows_behind(self, txn: Txn, table: Table, key: bytes, limit: int, most: int | None = None) -> list[tuple[bytes, bytes]]:
        """The next `limit` rows behind a key (empty: from the start), in order; fewer at the end. They are not checked here.

        With `most`, they end with the row that makes them `most` bytes.

        Raises:
            CorruptError: the rows are not in order, and that was told.
        """
        with txn.cursor(table.handle) as cursor:
            found = cursor.set_range(key) and (cursor.key() != key or cursor.next())
            following = cursor.iternext() if found else iter(())
            rows = list(islice(following if most is None else _up_to(most, following), limit))
        keys = [key, *(each for each, _ in rows)]
        if not all(map(lt, keys, keys[1:])):
            raise self._damaged(f"the rows of {table.name.decode()} are not in order")
        return rows

    def see_that_all_are_found(self, *tables: Table) -> None:
        """See that each row of some tables is found by its key, and none is hidden: 1 µs a row.

        Raises:
            CorruptError: it is not so, and that was told.
        """
        for table in tables:
            with self.reading() as txn:
                count = 0
                for key, row in txn.cursor(table.handle):
                    count += 1
                    if txn.get(key, db=table.handle) != row:
                        raise self._damaged(f"a row of {table.name.decode()} is not found by its key")
                if count != self.rows(txn, table):
                    raise self._damaged(f"{self.rows(txn, table) - count} rows of {table.name.decode()} are hidden")

    def state_of(self, table: Table) -> tuple[int, int]:
        """The number of the last commit, and how many rows the table says that it has."""
        with self.reading() as txn:
            return txn.id(), self.rows(txn, table)

    def rows(self, txn: Txn, table: Table) -> int:
        """How many rows a table says that it has."""
        return int(txn.stat(table.handle)["entries"])

    def all_rows(self, txn: Txn) -> int:
        """How many rows all tables say that they have: whoever has put them."""
        return sum(self.rows(txn, table) for table in self.tables)

    def tell_of_hidden_rows(self, table: Table, count: int) -> None:
        """Tell that rows of a table are not found, though it counts them."""
        self._damaged(f"{count} rows of {table.name.decode()} are hidden")

    def copy_unchecked(self, file: Path) -> None:
        """Take over all rows of an environment whose rows have no checks, from `data.mdb` and the lock file that is meant for it.

        Raises:
            CorruptError: it is damaged, or its rows have checks.
        """
        with (
            self._errors(),
            closing(lmdb.open(str(file.parent), map_size=MAP_SIZE, max_dbs=len(self.tables), readahead=False)) as old,
        ):
            for table in self.tables:
                with suppress(lmdb.NotFoundError), old.begin(old.open_db(table.name, create=False)) as source:
                    self._copy_rows(source, table)

    def _copy_rows(self, source: Txn, table: Table) -> None:
        progress = Progress(f"upgrading the index, copying {table.name.decode()}", source.stat()["entries"])
        for some in batched(source.cursor(), _ROWS_A_TRANSACTION):
            with self.writing() as txn:
                for key, row in some:
                    if table.is_whole(key, row):
                        raise CorruptError("rows of the index have checks, but it does not say so")
                    self._put(txn, table, key, row)
            progress.add(len(some))

    def _get(self, table: Table, key: bytes) -> bytes | None:
        # Without context managers, which take longer than the lookup; the transaction ends with its last reference. And with
        # `is_whole` written out: each call takes a tenth of the time of all this.
        try:
            row: bytes | None = self._env.begin(table.handle).get(key)
        except lmdb.Error as error:
            raise self._translated(error) from error
        if row is None or crc32(row, crc32(key, table.seed)) == RESIDUE:
            return row
        self._tell_of_row(table, key)
        return None

    def _row(self, txn: Txn, table: Table, key: bytes) -> bytes | None:
        """A row with its check, if it is there and whole."""
        row: bytes | None = txn.get(key, db=table.handle)
        return row if row is None or self._is_whole(table, key, row) else None

    def _whole_rows(self, txn: Txn, table: Table) -> Iterator[tuple[bytes, bytes]]:
        """All rows with their checks, in the order of their keys, but those that fail it."""
        return ((key, row) for key, row in txn.cursor(table.handle) if self._is_whole(table, key, row))

    def _put(self, txn: Txn, table: Table, key: bytes, row: bytes, *, overwrite: bool = True) -> bool:
        """Put a row with its check; whether that was done. Without `overwrite`, a whole row that is there already stays."""
        self.rows_put += 1
        checked = table.with_check(key, row)
        if not txn.put(key, checked, db=table.handle, overwrite=overwrite):
            return self._row(txn, table, key) is None and self._put(txn, table, key, row)
        # In a damaged page, keys may be out of order: what is put there is not found again.
        if txn.get(key, db=table.handle) != checked:
            raise self._damaged(f"a row of {table.name.decode()} is not found after it was put")
        return True

    def _is_whole(self, table: Table, key: bytes, row: bytes) -> bool:
        if table.is_whole(key, row):
            return True
        self._tell_of_row(table, key)
        return False

    def _tell_of_row(self, table: Table, key: bytes) -> None:
        self._damaged(f"a row of {table.name.decode()}, of {key.hex()}, fails its check")

    def _damaged(self, what: str) -> CorruptError:
        """Tell of damage; the error for whoever cannot go on."""
        message = f"the index {self.file} is damaged: {what}"
        self._damage.set(message)
        return CorruptError(f"{message}; it is made anew when the store is opened again")

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except lmdb.Error as error:
            raise self._translated(error) from error

    def _is_disk_nearly_full(self) -> bool:
        status = os.statvfs(self.file)
        return status.f_bavail * status.f_frsize < _NEARLY_FULL

    def _translated(self, error: lmdb.Error) -> StoreError:
        text = str(error)
        # Where a write fits only in part, LMDB says EIO ("short write, filesystem full?" in mdb_page_flush).
        full = "No space left" in text or "quota" in text or ("Input/output" in text and self._is_disk_nearly_full())
        match error:
            case lmdb.DiskError() | lmdb.MapFullError():
                full = True
            case _ if isinstance(error, _OF_DAMAGE):
                return self._damaged(str(error))
            case lmdb.ReadersFullError():
                return ExhaustedError(f"too many processes use the index {self.file}: {error}")
            case _:
                pass
        if full:
            return DiskFullError(f"cannot write the index {self.file}: {error}; free some space and try again")
        return UnavailableError(f"cannot use the index {self.file}: {error}")


def _up_to(most: int, rows: Iterator[tuple[bytes, bytes]]) -> Iterator[tuple[bytes, bytes]]:
    """The first of some rows, up to the one that makes them `most` bytes."""
    size = 0
    for key, row in rows:
        yield key, row
        size += len(row)
        if size >= most:
            return
