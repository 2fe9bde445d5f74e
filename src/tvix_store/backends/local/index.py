"""The index: one LMDB environment that tells where everything lies. All of it can be rebuilt from the packs.

The tables that lead from contents to places in packs are those of `content_index.py`. Three tables have values of their own:

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
from collections.abc import Container, Iterator
from itertools import islice
from pathlib import Path

from tvix_store.backends.local.content_index import ContentIndex
from tvix_store.backends.local.durability import Durability
from tvix_store.backends.local.environment import Txn
from tvix_store.backends.local.index_damage import DamageMark
from tvix_store.backends.local.ledger import REMOVED
from tvix_store.backends.local.rows import CHECK_SIZE, Table
from tvix_store.model.path_info import NarFacts, belongs_to

_TABLES = (b"path_infos", b"records", b"nar")
_U64 = struct.Struct("<Q")
_DELETED = 1 << 63
"""Set in the sequence number of a record that was deleted, or of a path info that was removed."""
_PAGE_BYTES = 1 << 20
"""Bytes of path infos that are read at a time, but for the last one of them."""


class Index(ContentIndex):
    """Typed access to the tables."""

    def __init__(self, file: Path, durability: Durability, damage: DamageMark) -> None:
        super().__init__(file, _TABLES, durability, damage)
        self.path_infos, self.records, self.nar = self.table(*_TABLES)

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

        Fewer where they are large: a path info may have 4 MiB. Also the output hash of the last row; None where there was none.
        """
        with self.reading() as txn:
            rows = self.rows_behind(txn, self.path_infos, output_hash, limit, _PAGE_BYTES)
        whole = ((key, self._encoded(key, row)) for key, row in rows if self._is_whole(self.path_infos, key, row))
        return [(key, encoded) for key, encoded in whole if encoded is not None], rows[-1][0] if rows else None

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

    def nar_facts(self, node_key: bytes) -> NarFacts | None:
        row = self._get(self.nar, node_key)
        return None if row is None else NarFacts(_U64.unpack_from(row)[0], row[_U64.size : -CHECK_SIZE])

    def put_nar_facts(self, txn: Txn, node_key: bytes, facts: NarFacts) -> None:
        self._put(txn, self.nar, node_key, _U64.pack(facts.size) + facts.sha256)

    def has_nar_facts(self, txn: Txn, node_key: bytes) -> bool:
        return self._row(txn, self.nar, node_key) is not None

    def keep_nar_facts(self, txn: Txn, nodes: Container[bytes]) -> None:
        """Forget what is known of all NARs but those of `nodes`. To pass over a million takes half a second."""
        with txn.cursor(self.nar.handle) as cursor:
            found = cursor.first()
            while found:
                found = cursor.next() if cursor.key() in nodes else cursor.delete()

    def drop_nar_facts(self, txn: Txn) -> None:
        """Forget what is known of NARs, all of it: they are rendered once more when they are asked for."""
        txn.drop(self.nar.handle, delete=False)

    def _sequence(self, txn: Txn, table: Table, key: bytes) -> int:
        row = self._row(txn, table, key)
        return 0 if row is None else _U64.unpack_from(row)[0]


def _value(row: bytes) -> bytes | None:
    """The value in a row of a record; None where it was deleted."""
    return None if _U64.unpack_from(row)[0] & _DELETED else row[_U64.size : -CHECK_SIZE]
