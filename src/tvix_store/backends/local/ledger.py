"""Ledger: what the index knows of the store as a whole.

    packs        u32-BE pack number              → u64 committed size, u64 synced size
    counters     name                            → u64

Where a counter, or what is known of the syncs of packs, is damaged, nothing is put any more. A guess could use a number twice, or
acknowledge bytes that are not on the disk.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

from tvix_store.backends.local.durability import Durability
from tvix_store.backends.local.environment import Environment, Txn
from tvix_store.backends.local.index_damage import DamageMark

VERSION = 1
"""Of the rows. Those of version 0, in stores of format 2, have no check."""
SEQUENCE = b"path info sequence"
HIGHEST_PACK = b"highest pack number"
"""Of all packs that there ever were: numbers are not used twice."""
GENERATION = b"times that damage was forgotten"
"""A random number, which changes when something was forgotten. Stores of format 3 count there."""
UNIQUE_BYTES = b"unique chunk bytes"
STORED_BYTES = b"stored chunk bytes"
REMOVED = b"removed path infos"
"""Rows of path infos that only say that there is none any more."""
COLLECTED = b"steps of the collection"
"""Rises when condemned content is published, and when it is dropped: what was known of NARs before may not hold any more."""
PUBLISHED_AT = b"seconds since 1970 when condemned content was published"
"""0 where there is none, or its condemnation has not come to its end."""
UNSAID = b"removals that the journal may not say"
"""Of path infos, by processes that died before they said so. Whoever collects content says all removals again first."""
_VERSION = b"version of the index"
_TABLES = (b"packs", b"counters")
_U64 = struct.Struct("<Q")
_SIZES = struct.Struct("<QQ")


class Ledger(Environment):
    """An environment with the tables of packs and counters, behind those of `tables`."""

    def __init__(self, file: Path, tables: Sequence[bytes], durability: Durability, damage: DamageMark) -> None:
        super().__init__(file, (*tables, *_TABLES), durability, damage)
        self.packs, self.counters = self.table(*_TABLES)

    @property
    def is_current(self) -> bool:
        """Whether its rows are of this version. If not, it is new, or of an older version, which `copy_unchecked` reads."""
        with self.reading() as txn:
            return txn.get(_VERSION, db=self.counters.handle) is not None

    def begin(self) -> None:
        """Say, in a new index, that its rows are of this version."""
        with self.writing() as txn:
            self._put(txn, self.counters, _VERSION, _U64.pack(VERSION))

    def pack_sizes(self, txn: Txn, number: int) -> tuple[int, int]:
        """How many bytes of a pack are committed, and how many are known to be on the disk itself. Zero: nobody knows."""
        row = self._row(txn, self.packs, number.to_bytes(4, "big"))
        return (0, 0) if row is None else _SIZES.unpack_from(row)

    def put_pack_sizes(self, txn: Txn, number: int, committed: int, synced: int) -> None:
        self._put(txn, self.packs, number.to_bytes(4, "big"), _SIZES.pack(committed, synced))
        if number > self.counter(txn, HIGHEST_PACK):
            self.put_counter(txn, HIGHEST_PACK, number)

    def name_packs(self, txn: Txn, own: int, size: int, synced: Mapping[int, int]) -> None:
        """Say how many bytes of packs are `synced`, and that `size` bytes of a writer's `own` pack (0: none) are committed."""
        for number in {*synced, own} - {0}:
            committed, on_disk = self.pack_sizes(txn, number)
            self.put_pack_sizes(txn, number, size if number == own else committed, max(on_disk, synced.get(number, 0)))

    def committed_packs(self, txn: Txn) -> dict[int, int]:
        """The committed sizes of all packs, as far as they are known."""
        return {int.from_bytes(key, "big"): _SIZES.unpack_from(row)[0] for key, row in self._whole_rows(txn, self.packs)}

    def drop_pack(self, txn: Txn, number: int) -> None:
        """Forget a pack: it is not one of this store any more."""
        txn.delete(number.to_bytes(4, "big"), db=self.packs.handle)

    def unsynced_packs(self, txn: Txn) -> dict[int, int]:
        """The packs with bytes that may not be on the disk itself, and their committed sizes.

        Raises:
            CorruptError: that cannot be told, so nothing may be acknowledged as durable.
        """
        unsynced: dict[int, int] = {}
        for key, row in txn.cursor(self.packs.handle):
            if not self._is_whole(self.packs, key, row):
                raise self._damaged("it does not tell what must be brought to the disk")
            committed, synced = _SIZES.unpack_from(row)
            if synced < committed:
                unsynced[int.from_bytes(key, "big")] = committed
        return unsynced

    def count(self, txn: Txn, name: bytes, more: int) -> int:
        """Add `more` to a counter; its new value."""
        value = self.counter(txn, name) + more
        self.put_counter(txn, name, value)
        return value

    def put_counter(self, txn: Txn, name: bytes, value: int) -> None:
        self._put(txn, self.counters, name, _U64.pack(value))

    def counter(self, txn: Txn, name: bytes) -> int:
        """The value of a counter.

        Raises:
            CorruptError: it is damaged. To begin with zero again would be wrong.
        """
        row = txn.get(name, db=self.counters.handle)
        if row is None:
            return 0
        if not self._is_whole(self.counters, name, row):
            raise self._damaged(f"it has lost the {name.decode()}")
        return int(_U64.unpack_from(row)[0])

    def collected(self) -> int:
        """How many steps of the collection there were after which earlier findings may not hold."""
        with self.reading() as txn:
            return self.counter(txn, COLLECTED)

    def generation(self) -> int:
        """A number that changes when something is forgotten, and never comes back. It is 0 in a new store."""
        with self.reading() as txn:
            return self.counter(txn, GENERATION)

    def renew_generation(self, txn: Txn) -> None:
        self._put(txn, self.counters, GENERATION, os.urandom(_U64.size))
