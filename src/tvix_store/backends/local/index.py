"""The index: one LMDB environment that tells where everything lies. All of it can be rebuilt from the packs.

    chunks       digest                          → Place
    directories  digest                          → Place
    chunk_lists  blob digest + u64-BE offset     → u64 blob size, Place     one row per segment of a blob's chunk list
    path_infos   output hash                     → u64 sequence, encoded path info
    records      key                             → u64 sequence, value       of the record service
    nar          BLAKE3 of the nameless node     → u64 NAR size, NAR SHA-256
    packs        u32-BE pack number              → u64 committed size, u64 synced size
    counters     name                            → u64

LMDB commits are not synced one by one (see `unsynced.py`): after a power cut a possibly torn index is not used, but rebuilt.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import lmdb

from tvix_store.backends.local.contents import Content, Written
from tvix_store.backends.local.disk import disk_errors, make_directory, new_file, open_or_create
from tvix_store.backends.local.packs import Place
from tvix_store.backends.local.records import KEY_SIZE, Kind
from tvix_store.backends.local.unsynced import UnsyncedMark
from tvix_store.errors import CorruptError, ExhaustedError, StoreError, UnavailableError
from tvix_store.model.digest import Digest
from tvix_store.model.path_info import NarFacts

MAP_SIZE = 1 << 38
"""Address space for the index in bytes (256 GiB: some two billion chunks). Not disk, not memory: the file grows as it is used."""
FILE = "data.mdb"
_TABLES = (b"chunks", b"directories", b"chunk_lists", b"path_infos", b"records", b"nar", b"packs", b"counters")
_MAX_READERS = 1024
_NEARLY_FULL = 4 << 20
"""Bytes left on a disk, fewer than which may be the cause of a write that failed half-way."""
_LOCK_FILE_SIZE = 17 * 4096
"""Bytes; LMDB needs 64 for each reader, and 128."""
_U64 = struct.Struct("<Q")
_U64_PAIR = struct.Struct("<QQ")

SEQUENCE = b"path info sequence"
FORGOTTEN = b"times that damage was forgotten"
UNIQUE_BYTES = b"unique chunk bytes"
STORED_BYTES = b"stored chunk bytes"

Txn = lmdb.Transaction
Table = lmdb._Database  # noqa: SLF001  # the only name that the type stubs have for it


def _create_files(directory: Path) -> None:
    """Create the files of an environment, with the owner and mode that they should have."""
    with disk_errors(directory):
        make_directory(directory)
        # LMDB maps this file, and would make it sparse: on a full disk, the first access kills the process (SIGBUS).
        fd = open_or_create(directory / "lock.mdb")
        try:
            os.posix_fallocate(fd, 0, _LOCK_FILE_SIZE)
        finally:
            os.close(fd)
        if not (directory / FILE).exists():
            os.close(open_or_create(directory / FILE))  # LMDB takes an empty file for a new environment


class Index:
    """Typed access to the tables. Readers take no locks; one transaction at a time writes, across all processes."""

    def __init__(self, directory: Path, mark: UnsyncedMark) -> None:
        self._directory = directory
        self._mark = mark
        if not (directory / FILE).exists():
            mark.set()
        _create_files(directory)
        with self._errors():
            self._env = lmdb.open(
                str(directory),
                map_size=MAP_SIZE,
                max_dbs=len(_TABLES),
                max_readers=_MAX_READERS,
                sync=False,
                metasync=False,
                readahead=False,
            )
            self._env.reader_check()
            tables = (self._env.open_db(name) for name in _TABLES)
            self.chunks, self.directories, self.chunk_lists, self.path_infos, self.records, self.nar, self.packs, self.counters = (
                tables
            )
        self.tables = {Kind.CHUNK: self.chunks, Kind.DIRECTORY: self.directories, Kind.CHUNK_LIST: self.chunk_lists}

    @contextmanager
    def reading(self) -> Iterator[Txn]:
        with self._errors(), self._env.begin() as txn:
            yield txn

    @contextmanager
    def writing(self) -> Iterator[Txn]:
        """A write transaction: committed at the end, undone on any error."""
        with self._errors(), self._env.begin(write=True) as txn:
            self._mark.set()
            yield txn

    def sync(self) -> None:
        """Bring every commit so far to the disk itself."""
        with self._errors():
            self._env.sync(True)

    def close(self) -> None:
        self._env.close()

    def pages(self) -> tuple[int, int]:
        """How many pages the file has, and how many of them are in use."""
        with self.reading() as txn:
            tables = (self._env.stat(), *(txn.stat(self._env.open_db(name, txn=txn)) for name in _TABLES))
        used = sum(table[kind] for table in tables for kind in ("branch_pages", "leaf_pages", "overflow_pages"))
        return self._env.info()["last_pgno"] + 1, used

    def copy_to(self, directory: Path) -> None:
        """Write a copy without free pages into an empty directory, and bring it to the disk itself."""
        with disk_errors(directory):
            fd = new_file(directory / FILE)
            try:
                with self._errors():
                    self._env.copyfd(fd, compact=True)
                os.fsync(fd)
            finally:
                os.close(fd)

    def chunk(self, digest: bytes) -> Place | None:
        return self._place(self.chunks, digest)

    def unknown(self, contents: Sequence[Content]) -> list[Content]:
        """Those of the contents that are not in the index."""
        with self.reading() as txn:
            return [content for content in contents if txn.get(content.key, db=self.tables[content.kind]) is None]

    def chunks_at(self, digests: Sequence[Digest]) -> list[Place | None]:
        """Where chunks lie, in the order of `digests`."""
        with self.reading() as txn:
            rows = [txn.get(digest.raw, db=self.chunks) for digest in digests]
        return [None if row is None else Place.from_bytes(bytes(row)) for row in rows]

    def directory(self, digest: bytes) -> Place | None:
        return self._place(self.directories, digest)

    def path_info(self, output_hash: bytes) -> bytes | None:
        row = self._get(self.path_infos, output_hash)
        return None if row is None else bytes(row[_U64.size :])

    def path_info_in(self, txn: Txn, output_hash: bytes) -> bytes | None:
        row = txn.get(output_hash, db=self.path_infos)
        return None if row is None else bytes(row[_U64.size :])

    def path_infos_behind(self, output_hash: bytes | None, limit: int) -> list[tuple[bytes, bytes]]:
        """Up to `limit` (output hash, encoded path info) in order, behind `output_hash` or from the start."""
        with self.reading() as txn, txn.cursor(self.path_infos) as cursor:
            if output_hash is None:
                found = cursor.first()
            else:
                found = cursor.set_range(output_hash) and (cursor.key() != output_hash or cursor.next())
            rows: list[tuple[bytes, bytes]] = []
            while found and len(rows) < limit:
                key, row = cursor.item()
                rows.append((bytes(key), bytes(row[_U64.size :])))
                found = cursor.next()
            return rows

    def path_info_sequence(self, txn: Txn, output_hash: bytes) -> int:
        row = txn.get(output_hash, db=self.path_infos)
        return 0 if row is None else _U64.unpack_from(row)[0]

    def put_path_info(self, txn: Txn, output_hash: bytes, sequence: int, encoded: bytes) -> None:
        txn.put(output_hash, _U64.pack(sequence) + encoded, db=self.path_infos)

    def record(self, key: bytes) -> bytes | None:
        """The value of a record."""
        row = self._get(self.records, key)
        return None if row is None else bytes(row[_U64.size :])

    def record_sequence(self, txn: Txn, key: bytes) -> int:
        row = txn.get(key, db=self.records)
        return 0 if row is None else _U64.unpack_from(row)[0]

    def record_values(self, txn: Txn, prefix: bytes) -> Iterator[bytes]:
        """The values of all records whose keys begin with `prefix`."""
        with txn.cursor(self.records) as cursor:
            found = cursor.set_range(prefix)
            while found and bytes(cursor.key()).startswith(prefix):
                yield bytes(cursor.value())[_U64.size :]
                found = cursor.next()

    def put_record(self, txn: Txn, key: bytes, sequence: int, value: bytes) -> None:
        txn.put(key, _U64.pack(sequence) + value, db=self.records)

    def chunk_list_segment(self, blob: bytes, offset: int) -> tuple[int, Place] | None:
        """The blob's size and the place of the segment of its chunk list that covers the byte at `offset`."""
        wanted = blob + offset.to_bytes(8, "big")
        with self.reading() as txn, txn.cursor(self.chunk_lists) as cursor:
            found = cursor.set_range(wanted)
            if not (found and cursor.key() == wanted):
                found = cursor.prev() if found else cursor.last()
            if not found or not bytes(cursor.key()).startswith(blob):
                return None
            row = bytes(cursor.value())
        return _U64.unpack_from(row)[0], Place.from_bytes(row[_U64.size :])

    def put_content(self, txn: Txn, kind: Kind, key: bytes, place: Place, blob_size: int = 0) -> bool:
        """Name the place of a chunk, a directory or a segment of a chunk list; whether it was new."""
        row = _U64.pack(blob_size) + place.to_bytes() if kind is Kind.CHUNK_LIST else place.to_bytes()
        return txn.put(key, row, db=self.tables[kind], overwrite=False)

    def place_in(self, txn: Txn, kind: Kind, key: bytes) -> Place | None:
        """Where a chunk or a directory lies."""
        row = txn.get(key, db=self.tables[kind])
        return None if row is None else Place.from_bytes(bytes(row))

    def drop_content(self, txn: Txn, kind: Kind, key: bytes, place: Place) -> bool:
        """Forget a chunk or a directory, if it is named and lies at `place`; whether it did."""
        if txn.get(key, db=self.tables[kind]) != place.to_bytes():
            return False
        txn.delete(key, db=self.tables[kind])
        if kind is Kind.CHUNK:
            self.count(txn, UNIQUE_BYTES, -place.length)
            self.count(txn, STORED_BYTES, -place.stored)
        return True

    def contents(self, txn: Txn, kind: Kind) -> Iterator[Written]:
        """All chunks, directories, or segments of chunk lists, in the order of their keys."""
        for key, row in txn.cursor(self.tables[kind]):
            if kind is Kind.CHUNK_LIST:
                yield Written(kind, bytes(key), _U64.unpack_from(row)[0], Place.from_bytes(bytes(row)[_U64.size :]))
            else:
                yield Written(kind, bytes(key), 0, Place.from_bytes(bytes(row)))

    def is_named(self, txn: Txn, kind: Kind, key: bytes) -> bool:
        """Whether there is a chunk, directory, or segment of a chunk list."""
        return txn.get(key, db=self.tables[kind]) is not None

    def chunk_list_segments(self, txn: Txn) -> Iterator[tuple[bytes, Place]]:
        """All segments of all chunk lists: the digest of the blob, and the place."""
        for key, row in txn.cursor(self.chunk_lists):
            yield bytes(key)[:KEY_SIZE], Place.from_bytes(bytes(row)[_U64.size :])

    def chunk_list_places(self, blob: bytes) -> list[Place]:
        """The places of all segments of a blob's chunk list."""
        places: list[Place] = []
        with self.reading() as txn, txn.cursor(self.chunk_lists) as cursor:
            found = cursor.set_range(blob)
            while found and bytes(cursor.key()).startswith(blob):
                places.append(Place.from_bytes(bytes(cursor.value())[_U64.size :]))
                found = cursor.next()
        return places

    def drop_chunk_list(self, txn: Txn, blob: bytes) -> None:
        """Forget all segments of a blob's chunk list."""
        with txn.cursor(self.chunk_lists) as cursor:
            found = cursor.set_range(blob)
            while found and bytes(cursor.key()).startswith(blob):
                found = cursor.delete()

    def nar_facts(self, node_key: bytes) -> NarFacts | None:
        row = self._get(self.nar, node_key)
        return None if row is None else NarFacts(_U64.unpack_from(row)[0], bytes(row[_U64.size :]))

    def put_nar_facts(self, txn: Txn, node_key: bytes, facts: NarFacts) -> None:
        txn.put(node_key, _U64.pack(facts.size) + facts.sha256, db=self.nar)

    def drop_nar_facts(self, txn: Txn) -> None:
        """Forget what is known of NARs, all of it: they are rendered once more when they are asked for."""
        txn.drop(self.nar, delete=False)

    def pack_sizes(self, txn: Txn, number: int) -> tuple[int, int]:
        """How many bytes of a pack are committed, and how many are known to be on the disk itself."""
        row = txn.get(number.to_bytes(4, "big"), db=self.packs)
        return (0, 0) if row is None else _U64_PAIR.unpack(row)

    def put_pack_sizes(self, txn: Txn, number: int, committed: int, synced: int) -> None:
        txn.put(number.to_bytes(4, "big"), _U64_PAIR.pack(committed, synced), db=self.packs)

    def committed_packs(self, txn: Txn) -> dict[int, int]:
        """The committed sizes of all packs."""
        rows = ((int.from_bytes(key, "big"), _U64_PAIR.unpack(row)) for key, row in txn.cursor(self.packs))
        return {number: committed for number, (committed, _) in rows}

    def drop_pack(self, txn: Txn, number: int) -> None:
        """Forget a pack: it is not one of this store any more."""
        txn.delete(number.to_bytes(4, "big"), db=self.packs)

    def unsynced_packs(self, txn: Txn) -> dict[int, int]:
        """The packs with bytes that may not be on the disk itself, and their committed sizes."""
        rows = ((int.from_bytes(key, "big"), _U64_PAIR.unpack(row)) for key, row in txn.cursor(self.packs))
        return {number: committed for number, (committed, synced) in rows if synced < committed}

    def count(self, txn: Txn, name: bytes, more: int) -> int:
        """Add `more` to a counter; its new value."""
        value = self.counter(txn, name) + more
        txn.put(name, _U64.pack(value), db=self.counters)
        return value

    def counter(self, txn: Txn, name: bytes) -> int:
        row = txn.get(name, db=self.counters)
        return 0 if row is None else int(_U64.unpack(row)[0])

    def chunked_blobs(self, txn: Txn) -> int:
        """How many blobs are cut into more than one chunk: the chunk list segments that begin one."""
        return sum(bytes(key).endswith(b"\0" * 8) for key in txn.cursor(self.chunk_lists).iternext(values=False))

    def forgotten(self) -> int:
        """How many times something was forgotten because it was damaged."""
        row = self._get(self.counters, FORGOTTEN)
        return 0 if row is None else int(_U64.unpack(row)[0])

    def rows(self, txn: Txn, table: Table) -> int:
        return int(txn.stat(table)["entries"])

    def _place(self, table: Table, key: bytes) -> Place | None:
        row = self._get(table, key)
        return None if row is None else Place.from_bytes(row)

    def _get(self, table: Table, key: bytes) -> bytes | None:
        # Without the context managers, which take longer than the lookup.
        try:
            with self._env.begin() as txn:
                row: bytes | None = txn.get(key, db=table)
                return row
        except lmdb.Error as error:
            raise self._translated(error) from error

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except lmdb.Error as error:
            raise self._translated(error) from error

    def _is_disk_nearly_full(self) -> bool:
        status = os.statvfs(self._directory)
        return status.f_bavail * status.f_frsize < _NEARLY_FULL

    def _translated(self, error: lmdb.Error) -> StoreError:
        text = str(error)
        # Where a write fits only in part, LMDB says EIO ("short write, filesystem full?" in mdb_page_flush).
        full = "No space left" in text or "quota" in text or ("Input/output" in text and self._is_disk_nearly_full())
        match error:
            case lmdb.DiskError() | lmdb.MapFullError():
                full = True
            case lmdb.CorruptedError() | lmdb.InvalidError() | lmdb.PageNotFoundError() | lmdb.VersionMismatchError():
                return CorruptError(
                    f"the index in {self._directory} is damaged ({error}); remove that directory: it is made anew from the packs"
                )
            case lmdb.ReadersFullError():
                return ExhaustedError(f"too many processes use the index in {self._directory}: {error}")
            case _:
                pass
        if full:
            return ExhaustedError(f"cannot write the index in {self._directory}: {error}; free some space and try again")
        return UnavailableError(f"cannot use the index in {self._directory}: {error}")
