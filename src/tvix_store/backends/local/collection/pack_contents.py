"""PackContents: what of a pack is still needed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from tvix_store.backends.local.chunk_lists import segment_key
from tvix_store.backends.local.contents import Written, read_rows
from tvix_store.backends.local.environment import Txn
from tvix_store.backends.local.index import Index
from tvix_store.backends.local.pack_scan import Entry, PackScan
from tvix_store.backends.local.packs import PREFIX_SIZE, pack_path
from tvix_store.backends.local.progress import Progress
from tvix_store.backends.local.records import (
    CONTENTS,
    HEADER_SIZE,
    Kind,
    NewRecord,
    forgotten,
    keyed_records,
    parse_keyed_records,
    parse_path_info,
    path_info_record,
)
from tvix_store.model.store_path import OUTPUT_HASH_SIZE
from tvix_store.services.batches import batched

_AT_ONCE = 1000
"""Entries that are looked up in one read transaction."""


@dataclass(slots=True)
class PackContents:
    """The entries of a pack that count.

    contents: Those that the index names, live or condemned.
    path_infos: Output hashes of paths whose newest entry is here: they are there, or were removed.
    records: The keys of records whose newest entry is here.
    gone: What is forgotten, and lies in other packs.
    size: Bytes of all that.
    """

    contents: list[Written] = field(default_factory=list)
    path_infos: list[bytes] = field(default_factory=list)
    records: list[bytes] = field(default_factory=list)
    gone: list[Written] = field(default_factory=list)
    size: int = PREFIX_SIZE

    @classmethod
    def of(cls, index: Index, packs: Path, number: int, committed: int) -> PackContents:
        """Go through the first `committed` bytes of a pack.

        Raises:
            CorruptError: the file is not a pack.
            OSError: it cannot be read.
        """
        found = cls()
        progress = Progress(f"looking through pack {number:08x}", committed)
        with closing(PackScan(pack_path(packs, number), number, PREFIX_SIZE)) as scan:
            for some in batched(scan.entries(progress, min(committed, scan.size)), _AT_ONCE):
                with index.reading() as txn:
                    known = index.committed_packs(txn)
                    for entry in some:
                        found._take(index, txn, entry, known)
        return found

    @property
    def named(self) -> int:
        """Bytes of the contents."""
        return sum(HEADER_SIZE + each.place.stored for each in self.contents)

    def add(self, contents: Iterable[Written]) -> None:
        """Add contents that the index names, and that were not found: only their headers are damaged, which no reader looks at."""
        found = set(self.contents)
        for each in contents:
            if each not in found:
                found.add(each)
                self.contents.append(each)
                self.size += HEADER_SIZE + each.place.stored

    def journal_parts(self, most: int) -> Iterator[PackContents]:
        """What `journal` tells, in parts of up to so many path infos, records and places."""
        lengths = (len(self.path_infos), len(self.records), len(self.gone))
        for at in range(0, max(lengths), most):
            end = at + most
            yield PackContents([], self.path_infos[at:end], self.records[at:end], self.gone[at:end])

    def journal(self, index: Index, txn: Txn) -> Iterator[NewRecord]:
        """The entries that say once more what path infos and records are now, and what is forgotten."""
        for output_hash in self.path_infos:
            yield path_info_record(output_hash, index.path_info_sequence(txn, output_hash), index.path_info_in(txn, output_hash))
        by_sequence: dict[int, dict[bytes, bytes | None]] = {}
        for key in self.records:
            by_sequence.setdefault(index.record_sequence(txn, key), {})[key] = index.record_in(txn, key)
        for sequence, records in by_sequence.items():
            yield keyed_records(sequence, records, durable=True)
        if self.gone:
            yield forgotten(b"".join(each.to_bytes() for each in self.gone))

    def _take(self, index: Index, txn: Txn, entry: Entry, known: dict[int, int]) -> None:
        counts = False
        if entry.kind in CONTENTS:
            content = _written(entry)
            if index.is_at(txn, content):
                self.contents.append(content)
                counts = True
        elif entry.kind is Kind.PATH_INFO:
            output_hash = entry.key[:OUTPUT_HASH_SIZE]
            if index.path_info_sequence(txn, output_hash) == parse_path_info(entry.payload)[0]:
                self.path_infos.append(output_hash)
                counts = True
        elif entry.kind in (Kind.RECORDS, Kind.LOOSE_RECORDS):
            sequence, records = parse_keyed_records(entry.payload)
            newest = [key for key in records if index.record_sequence(txn, key) == sequence]
            self.records += newest
            counts = bool(newest)
        elif entry.kind is Kind.FORGOTTEN:
            rows = [each for each in read_rows(entry.payload) if each.place.pack != entry.pack and known.get(each.place.pack)]
            self.gone += rows
            counts = bool(rows)
        if counts:
            self.size += HEADER_SIZE + entry.stored


def _written(entry: Entry) -> Written:
    if entry.kind is Kind.CHUNK_LIST:
        return Written(entry.kind, *segment_key(entry.key, entry.payload), entry.place)
    return Written(entry.kind, entry.key, 0, entry.place)
