"""The index: one LMDB environment that tells where everything lies. All of it can be rebuilt from the packs.

Three tables lead from contents to places in packs:

    chunks       digest                          → Place
    directories  digest                          → Place
    chunk_lists  blob digest + u64-BE offset     → u64 blob size, Place     one row per segment of a blob's chunk list

Three tables have values of their own:

    path_infos   output hash                     → u64 sequence, encoded path info
    records      key                             → u64 sequence, value of the record service
    nar          BLAKE3 of the nameless node     → u64 NAR size, NAR SHA-256

The top bit of a sequence is set where the record is deleted, or the path info removed. Then the row has no value.

What is known of the store as a whole stands in two more tables (see `ledger.py`).

Each row ends with a check (see `rows.py`). A row that fails it counts as missing. So a put stores anew what the row named. The
damage is reported (see `index_damage.py`).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from zlib import crc32

from tvix_store.backends.local.contents import Content, Name, Written
from tvix_store.backends.local.durability import Durability
from tvix_store.backends.local.environment import Txn
from tvix_store.backends.local.index_damage import DamageMark
from tvix_store.backends.local.ledger import REMOVED, STORED_BYTES, UNIQUE_BYTES, Ledger
from tvix_store.backends.local.packs import Place
from tvix_store.backends.local.records import KEY_SIZE, Kind
from tvix_store.backends.local.rows import CHECK_SIZE, RESIDUE, Table
from tvix_store.model.path_info import NarFacts, belongs_to

_TABLES = (b"chunks", b"directories", b"chunk_lists", b"path_infos", b"records", b"nar")
_U64 = struct.Struct("<Q")
_PLACE_ROW = struct.Struct("<IQII4x")
_PLACE_HEAD = struct.Struct("<IQI")
_DELETED = 1 << 63
"""Set in the sequence number of a record that was deleted, or of a path info that was removed."""


class Index(Ledger):
    """Typed access to the tables."""

    def __init__(self, file: Path, durability: Durability, damage: DamageMark) -> None:
        super().__init__(file, _TABLES, durability, damage)
        self.chunks, self.directories, self.chunk_lists, self.path_infos, self.records, self.nar = self.tables[: len(_TABLES)]
        self.bytes_put = 0
        """Stored bytes of all contents that this process has named."""
        self._table_of = {Kind.CHUNK: self.chunks, Kind.DIRECTORY: self.directories, Kind.CHUNK_LIST: self.chunk_lists}

    def chunk(self, digest: bytes) -> Place | None:
        return self._place(self.chunks, digest)

    def unknown(self, contents: Sequence[Content]) -> list[Content]:
        """Those of the contents that are not in the index."""
        with self.reading() as txn:
            return [content for content in contents if self._row(txn, self._table_of[content.kind], content.key) is None]

    def chunks_at(self, digests: Sequence[bytes]) -> list[Place | None]:
        """Where chunks lie, in the order of `digests`."""
        return [None if fields is None else Place(*fields) for fields in self.places_of_chunks(digests)]

    def places_of_chunks(self, digests: Sequence[bytes]) -> list[tuple[int, int, int, int] | None]:
        """As `chunks_at`, as the fields of a `Place`: to make one takes as long as to look it up."""
        with self.reading() as txn, txn.cursor(self.chunks.handle) as cursor:
            rows = cursor.getmulti(digests)
        seed, unpack = self.chunks.seed, _PLACE_ROW.unpack
        # `is_whole`, written out.
        fields = [unpack(row) if crc32(row, crc32(key, seed)) == RESIDUE else None for key, row in rows]
        if len(fields) == len(digests) and None not in fields:
            return fields
        for (key, _), place in zip(rows, fields, strict=True):
            if place is None:
                self._tell_of_row(self.chunks, key)
        found = dict(zip((key for key, _ in rows), fields, strict=True))
        return [found.get(digest) for digest in digests]

    def directory(self, digest: bytes) -> Place | None:
        return self._place(self.directories, digest)

    def path_info(self, output_hash: bytes) -> bytes | None:
        row = self._get(self.path_infos, output_hash)
        return None if row is None else self._encoded(output_hash, row)

    def path_info_in(self, txn: Txn, output_hash: bytes) -> bytes | None:
        row = self._row(txn, self.path_infos, output_hash)
        return None if row is None else self._encoded(output_hash, row)

    def _encoded(self, output_hash: bytes, row: bytes) -> bytes | None:
        """The path info of a row, unless it was removed; its own name must be that of the path that is asked for."""
        encoded = row[_U64.size : -CHECK_SIZE]
        if not encoded and _U64.unpack_from(row)[0] & _DELETED:
            return None
        if belongs_to(encoded, output_hash):
            return encoded
        self._tell_of_row(self.path_infos, output_hash)
        return None

    def path_infos_behind(self, output_hash: bytes, limit: int) -> tuple[list[tuple[bytes, bytes]], bytes | None]:
        """What `limit` rows behind that of `output_hash` tell of paths that are there: output hash and encoded path info, in order.

        Also the output hash of the last row; None where no more rows follow.
        """
        with self.reading() as txn, txn.cursor(self.path_infos.handle) as cursor:
            last, count = output_hash, 0
            found = cursor.set_range(last) and (cursor.key() != output_hash or cursor.next())
            rows: list[tuple[bytes, bytes]] = []
            while found and count < limit:
                key, row = cursor.item()
                if key <= last:
                    raise self._damaged("its path infos are not in order")
                last, count = key, count + 1
                encoded = self._encoded(key, row) if self._is_whole(self.path_infos, key, row) else None
                if encoded is not None:
                    rows.append((key, encoded))
                found = cursor.next()
            return rows, last if found else None

    def path_info_sequence(self, txn: Txn, output_hash: bytes) -> int:
        return self._sequence(txn, self.path_infos, output_hash) & ~_DELETED

    def has_path_info(self, txn: Txn, output_hash: bytes) -> bool:
        """Whether a path is there."""
        return 0 < self._sequence(txn, self.path_infos, output_hash) < _DELETED

    def removed_at(self, txn: Txn, output_hash: bytes) -> int:
        """The sequence number with which a path was removed; 0 for one that is there, or never was."""
        sequence = self._sequence(txn, self.path_infos, output_hash)
        return sequence & ~_DELETED if sequence & _DELETED else 0

    def path_info_rows(self, txn: Txn) -> Iterator[tuple[bytes, int, bytes | None]]:
        """All path infos: output hash, sequence number, and encoded (None: removed)."""
        for key, row in self._whole_rows(txn, self.path_infos):
            marked = _U64.unpack_from(row)[0]
            encoded = self._encoded(key, row)
            if encoded is not None or marked & _DELETED:
                yield key, marked & ~_DELETED, encoded

    def path_infos_since(self, txn: Txn, sequence: int) -> Iterator[tuple[bytes, bytes]]:
        """The path infos with higher sequence numbers: output hash and encoded.

        Rows with lower ones are passed over unchecked: for 100,000 that takes 40 ms.
        """
        for key, row in txn.cursor(self.path_infos.handle):
            if sequence < _U64.unpack_from(row)[0] < _DELETED and self._is_whole(self.path_infos, key, row):
                encoded = self._encoded(key, row)
                if encoded is not None:
                    yield key, encoded

    def put_path_info(self, txn: Txn, output_hash: bytes, sequence: int, encoded: bytes | None) -> None:
        """Put a path info, or (None) what keeps older ones of its path from coming back when packs are read again."""
        was_removed = bool(self.removed_at(txn, output_hash))
        row = _U64.pack(sequence | _DELETED) if encoded is None else _U64.pack(sequence) + encoded
        self._put(txn, self.path_infos, output_hash, row)
        if was_removed != (encoded is None):
            self.count(txn, REMOVED, -1 if was_removed else 1)

    def record(self, key: bytes) -> bytes | None:
        """The value of a record."""
        row = self._get(self.records, key)
        return None if row is None else _value(row)

    def record_in(self, txn: Txn, key: bytes) -> bytes | None:
        """The value of a record, as a transaction sees it."""
        row = self._row(txn, self.records, key)
        return None if row is None else _value(row)

    def records_from(self, start: bytes, prefix: bytes, limit: int) -> list[tuple[bytes, bytes | None]]:
        """Up to `limit` rows of records whose keys begin with `prefix`, from `start` on: key, and value (None: deleted)."""
        with self.reading() as txn:
            rows = islice(self._beginning_with(txn, self.records, prefix, start), limit)
            return [(key, None if row is None else _value(row)) for key, row in rows]

    def record_sequence(self, txn: Txn, key: bytes) -> int:
        return self._sequence(txn, self.records, key) & ~_DELETED

    def record_values(self, txn: Txn, prefix: bytes) -> Iterator[bytes]:
        """The values of all records whose keys begin with `prefix`."""
        for _, row in self._beginning_with(txn, self.records, prefix, prefix):
            value = None if row is None else _value(row)
            if value is not None:
                yield value

    def record_rows(self, txn: Txn) -> Iterator[tuple[bytes, int, bytes | None]]:
        """All records: key, sequence number, and value (None: deleted)."""
        for key, row in self._whole_rows(txn, self.records):
            yield key, _U64.unpack_from(row)[0] & ~_DELETED, _value(row)

    def put_record(self, txn: Txn, key: bytes, sequence: int, value: bytes | None) -> None:
        """Put a record, or what keeps older ones of its key from coming back when packs are read again."""
        row = _U64.pack(sequence | _DELETED) if value is None else _U64.pack(sequence) + value
        self._put(txn, self.records, key, row)

    def chunk_list_segment(self, blob: bytes, offset: int) -> tuple[int, Place] | None:
        """The blob's size and the place of the segment of its chunk list that covers the byte at `offset`."""
        wanted = blob + offset.to_bytes(8, "big")
        with self.reading() as txn, txn.cursor(self.chunk_lists.handle) as cursor:
            found = cursor.set_range(wanted)
            if not (found and cursor.key() == wanted):
                found = cursor.prev() if found else cursor.last()
            if not found or not cursor.key().startswith(blob):
                return None
            key, row = cursor.item()
        if not self._is_whole(self.chunk_lists, key, row):
            return None
        return _U64.unpack_from(row)[0], Place.from_bytes(row[_U64.size :])

    def put_content(self, txn: Txn, kind: Kind, key: bytes, place: Place, blob_size: int = 0) -> bool:
        """Name the place of a chunk, a directory or a segment of a chunk list; whether it was new."""
        self.bytes_put += place.stored
        row = _U64.pack(blob_size) + place.to_bytes() if kind is Kind.CHUNK_LIST else place.to_bytes()
        return self._put(txn, self._table_of[kind], key, row, overwrite=False)

    def place_in(self, txn: Txn, kind: Kind, key: bytes) -> Place | None:
        """Where a chunk or a directory lies."""
        row = self._row(txn, self._table_of[kind], key)
        return None if row is None else Place.from_bytes(row)

    def drop_content(self, txn: Txn, kind: Kind, key: bytes, place: Place) -> bool:
        """Forget a chunk or a directory, if it is named and lies at `place`; whether it did."""
        if self.place_in(txn, kind, key) != place:
            return False
        txn.delete(key, db=self._table_of[kind].handle)
        if kind is Kind.CHUNK:
            self.count(txn, UNIQUE_BYTES, -place.length)
            self.count(txn, STORED_BYTES, -place.stored)
        return True

    def move_content(self, txn: Txn, kind: Kind, key: bytes, place: Place) -> None:
        """Name another place of a chunk or a directory. The caller counts the bytes."""
        self._put(txn, self._table_of[kind], key, place.to_bytes())

    def contents(self, txn: Txn, kind: Kind) -> Iterator[Written]:
        """All chunks, directories, or segments of chunk lists, in the order of their keys."""
        head = _head(kind)
        for key, row in self._whole_rows(txn, self._table_of[kind]):
            yield Written(kind, key, _U64.unpack_from(row)[0] if head else 0, Place.from_bytes(row[head:]))

    def places_behind(self, kind: Kind, key: bytes, limit: int) -> tuple[list[tuple[bytes, int, int, int]], bytes | None]:
        """The next `limit` rows behind a key, but those that fail their checks: the key, pack, offset and stored bytes of each.

        Also the last key; None where no more rows follow.
        """
        table, head = self._table_of[kind], _head(kind)
        with self.reading() as txn, txn.cursor(table.handle) as cursor:
            found = cursor.set_range(key) and (cursor.key() != key or cursor.next())
            rows = list(islice(cursor.iternext(), limit)) if found else []
        unpack = _PLACE_HEAD.unpack_from  # making Places would take three times as long
        places = [(name, *unpack(row, head)) for name, row in rows if self._is_whole(table, name, row)]
        if rows and rows[-1][0] <= key:
            raise self._damaged(f"the rows of {table.name.decode()} are not in order")
        return places, rows[-1][0] if len(rows) == limit else None

    def place_of(self, kind: Kind, key: bytes) -> Place | None:
        """Where a chunk, a directory, or a segment of a chunk list lies now."""
        row = self._get(self._table_of[kind], key)
        return None if row is None else Place.from_bytes(row[_head(kind) :])

    def touch(self, names: Sequence[Name]) -> None:
        """Look contents up, so that their pages are in memory."""
        with self.reading() as txn:
            for kind, key in names:
                txn.get(key, db=self._table_of[kind].handle)

    def is_named(self, txn: Txn, kind: Kind, key: bytes) -> bool:
        """Whether there is a chunk, directory, or segment of a chunk list."""
        return self._row(txn, self._table_of[kind], key) is not None

    def chunk_list_segments(self, txn: Txn) -> Iterator[tuple[bytes, Place]]:
        """All segments of all chunk lists: the digest of the blob, and the place."""
        return ((segment.key[:KEY_SIZE], segment.place) for segment in self.contents(txn, Kind.CHUNK_LIST))

    def chunk_list(self, txn: Txn, blob: bytes) -> list[Written]:
        """All segments of a blob's chunk list, in order."""
        return [
            Written(Kind.CHUNK_LIST, key, _U64.unpack_from(row)[0], Place.from_bytes(row[_U64.size :]))
            for key, row in self._beginning_with(txn, self.chunk_lists, blob, blob)
            if row is not None
        ]

    def chunk_list_places(self, blob: bytes) -> list[Place]:
        """The places of all segments of a blob's chunk list."""
        with self.reading() as txn:
            return [segment.place for segment in self.chunk_list(txn, blob)]

    def drop_chunk_list(self, txn: Txn, blob: bytes) -> None:
        """Forget all segments of a blob's chunk list."""
        with txn.cursor(self.chunk_lists.handle) as cursor:
            found = cursor.set_range(blob)
            while found and cursor.key().startswith(blob):
                found = cursor.delete()

    def nar_facts(self, node_key: bytes) -> NarFacts | None:
        row = self._get(self.nar, node_key)
        return None if row is None else NarFacts(_U64.unpack_from(row)[0], row[_U64.size : -CHECK_SIZE])

    def put_nar_facts(self, txn: Txn, node_key: bytes, facts: NarFacts) -> None:
        self._put(txn, self.nar, node_key, _U64.pack(facts.size) + facts.sha256)

    def drop_nar_facts(self, txn: Txn) -> None:
        """Forget what is known of NARs, all of it: they are rendered once more when they are asked for."""
        txn.drop(self.nar.handle, delete=False)

    def chunked_blobs(self, txn: Txn) -> int:
        """How many blobs are cut into more than one chunk: the chunk list segments that begin one."""
        return sum(key.endswith(b"\0" * 8) for key in txn.cursor(self.chunk_lists.handle).iternext(values=False))

    def _place(self, table: Table, key: bytes) -> Place | None:
        row = self._get(table, key)
        return None if row is None else Place.from_bytes(row)

    def _beginning_with(self, txn: Txn, table: Table, prefix: bytes, start: bytes) -> Iterator[tuple[bytes, bytes | None]]:
        """The rows whose keys begin with `prefix`, from `start` on; None for a row that fails its check."""
        with txn.cursor(table.handle) as cursor:
            found = cursor.set_range(start)
            while found and cursor.key().startswith(prefix):
                key, row = cursor.item()
                yield key, row if self._is_whole(table, key, row) else None
                found = cursor.next()

    def _sequence(self, txn: Txn, table: Table, key: bytes) -> int:
        row = self._row(txn, table, key)
        return 0 if row is None else _U64.unpack_from(row)[0]


def _head(kind: Kind) -> int:
    """Bytes of a row before the place of the content."""
    return _U64.size if kind is Kind.CHUNK_LIST else 0


def _value(row: bytes) -> bytes | None:
    """The value in a row of a record; None where it was deleted."""
    return None if _U64.unpack_from(row)[0] & _DELETED else row[_U64.size : -CHECK_SIZE]
