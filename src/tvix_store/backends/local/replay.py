"""Replay: entering the ends of packs, which the index does not name yet, into the index.

Packs hold all that was ever stored, in the order in which it was stored. The index says of each pack how many bytes of it are
entered. So a replay makes a current index of one of any age. After a power cut, it begins with the index of the last checkpoint,
and enters the ends of some packs. An empty index takes all packs.
"""

from __future__ import annotations

import logging
from collections.abc import Container, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from blake3 import blake3

from tvix_store.backends.local.chunk_lists import SEGMENT_HEAD, segment_key
from tvix_store.backends.local.compression import unpack
from tvix_store.backends.local.contents import Name, Written, read_rows
from tvix_store.backends.local.durability import Durability
from tvix_store.backends.local.environment import Txn
from tvix_store.backends.local.given_up import drop_given_up, drop_torn_blobs
from tvix_store.backends.local.index import Index
from tvix_store.backends.local.ledger import SEQUENCE, STORED_BYTES, UNIQUE_BYTES
from tvix_store.backends.local.pack_reader import PackReader
from tvix_store.backends.local.pack_scan import Entry, PackScan
from tvix_store.backends.local.packs import PREFIX_SIZE, pack_numbers, pack_path
from tvix_store.backends.local.progress import Progress
from tvix_store.backends.local.records import (
    CONTENTS,
    DURABLE,
    HEADER_SIZE,
    KEY_SIZE,
    SELF_NAMING,
    Kind,
    parse_accepted,
    parse_keyed_records,
    parse_path_info,
)
from tvix_store.errors import CorruptError, StoreError
from tvix_store.model.path_info import PathInfo
from tvix_store.model.store_path import OUTPUT_HASH_SIZE

_ENTRIES_A_TRANSACTION = 10_000
_BYTES_A_TRANSACTION = 16 << 20
"""Of records and path infos that wait for the transaction."""
_PREFETCHED_FROM = 500
"""Contents; fewer are not worth the threads."""
_KEPT = 100_000
"""Entries of a tail that are kept in memory: 30 MB."""
_READERS = 16
"""Reads of the disk at a time."""
_log = logging.getLogger(__name__)


class _Entered(NamedTuple):
    """What entries are about that were entered: blobs, of which a part of a chunk list was, and the output hashes of path infos."""

    blobs: set[bytes]
    path_infos: set[bytes]


def replay(index: Index, packs: Path, durability: Durability, *, is_live: bool = False) -> None:
    """Enter every entry that the index does not have. Damaged places are passed over, and logged.

    Where it `is_live`, others may be writing to the packs, and packs are read at different moments. So contents that were appended
    meanwhile are entered at the end. Then every entered path info finds its content. The next replay enters the rest.
    """
    with index.reading() as txn:
        known = index.committed_packs(txn)
    new = _Entered(set(), set())
    is_changed = _enter_tails(index, packs, known, new, is_live=is_live)
    if is_live:
        with index.reading() as txn:
            entered = index.committed_packs(txn)
        is_changed |= _enter_tails(index, packs, entered, new, is_live=True, only_contents=True)
    if is_changed:
        with closing(PackReader(packs, durability)) as reader:
            drop_torn_blobs(index, reader, new.blobs if known else None, logging.DEBUG if is_live else logging.WARNING)
        drop_given_up(index, new.path_infos)


def _enter_tails(
    index: Index,
    packs: Path,
    known: dict[int, int],
    new: _Entered,
    *,
    is_live: bool,
    only_contents: bool = False,
) -> bool:
    """Enter the entries behind the `known` sizes of packs; whether there are any. `new` gets what they are about."""
    tails = list(_tails(packs, known, is_live=is_live))
    # Each tail is gone through twice.
    progress = Progress("replaying packs", 2 * sum(tail.scan.size - tail.scan.start for tail in tails))
    try:
        for tail in tails:
            tail.survey(progress)
        _accept(tails)
        gone = [each for tail in tails for each in tail.forgotten]
        if tails and (gone or not known):
            _forget(index, gone)
        places = {(each.place.pack, each.place.offset) for each in gone}
        for tail in tails:
            tail.enter(index, places, new, progress, only_contents=only_contents)
    finally:
        for tail in tails:
            tail.scan.close()
    return bool(tails)


def _tails(packs: Path, known: dict[int, int], *, is_live: bool) -> Iterator[_Tail]:
    """The packs that have more bytes than the index knows."""
    for number in pack_numbers(packs):
        path, start = pack_path(packs, number), known.get(number, 0)
        if path.stat().st_size > start:
            try:
                yield _Tail(PackScan(path, number, max(start, PREFIX_SIZE), is_live=is_live), checks_all=bool(known))
            except CorruptError as error:
                # With its first bytes, the key is lost that tells entries from garbage.
                _log.warning("%s; nothing in it is found any more", error)


def _accept(tails: Sequence[_Tail]) -> None:
    """Let each tail know what the entries of all packs say of it. The newest one counts: a pack that was cut gets shorter."""
    newest: dict[int, tuple[int, int]] = {}
    for tail in tails:
        for number, said in tail.accepted.items():
            newest[number] = max(said, newest.get(number, said))
    for tail in tails:
        tail.accept(newest.get(tail.scan.number, (0, 0))[1])


def _forget(index: Index, gone: Iterable[Written]) -> None:
    """Take content out of the index that was forgotten since. All facts about it are outdated."""
    with index.writing() as txn:
        for each in gone:
            if each.kind is not Kind.CHUNK_LIST:
                index.drop_content(txn, each.kind, each.key, each.place)
            elif each in index.chunk_list(txn, each.key[:KEY_SIZE]):
                index.drop_chunk_list(txn, each.key[:KEY_SIZE])
        index.drop_nar_facts(txn)
        index.renew_generation(txn)


class _Tail:
    """The end of a pack. `checks_all` holds all contents against their digests, not only those that a power cut may have torn."""

    def __init__(self, scan: PackScan, *, checks_all: bool) -> None:
        self.scan = scan
        self._checks_all = checks_all
        self._synced_to = 0
        """Everything before had reached the disk when the entry there was written: a power cut spared that."""
        self._end = scan.size
        """Behind it lies what was staged and not accepted."""
        self.forgotten: list[Written] = []
        """What its entries say is forgotten."""
        self.accepted: dict[int, tuple[int, int]] = {}
        """What its entries say of packs: a sequence number, and how many bytes are accepted."""
        self._entries: list[Entry] | None = None
        """All of them, where they are few: then they are read once."""

    def survey(self, progress: Progress) -> None:
        synced, end = 0, self.scan.size
        kept: list[Entry] = []
        for entry in self.scan.entries(progress):
            if len(kept) <= _KEPT:
                kept.append(_without_payload(entry))
            if entry.kind is Kind.STAGED:  # the writer of a stage first cuts off what was not accepted before
                end = entry.offset - HEADER_SIZE
            elif entry.kind not in CONTENTS:
                end = self.scan.size
            if entry.kind is Kind.FORGOTTEN:
                self.forgotten += read_rows(entry.payload)
            if entry.kind is Kind.COMMITTED:
                sequence, sizes = parse_accepted(entry.payload)  # the numbers rise within a pack
                self.accepted |= {number: (sequence, size) for number, size in sizes.items()}
            if entry.kind in DURABLE:
                synced = entry.offset
        self._synced_to, self._end = 0 if self._checks_all else synced, end
        if len(kept) <= _KEPT and self._checks_all:  # else there may be as many tails as there are packs
            self._entries = kept

    def accept(self, size: int) -> None:
        """So many bytes of the pack are accepted, though the entry that said so may be lost."""
        self._end = max(self._end, size)

    def enter(
        self,
        index: Index,
        forgotten: Container[tuple[int, int]],
        new: _Entered,
        progress: Progress,
        *,
        only_contents: bool,
    ) -> None:
        """Enter what is whole, and not forgotten (pack and offset). `new` gets what it is about.

        With `only_contents`, the rest of the tail is still to be entered.
        """
        found = self.scan.entries(progress, self._end) if self._entries is None else self._entries
        entries = (
            entry
            for entry in found
            if entry.offset < self._end
            and (entry.kind in CONTENTS or not only_contents)
            and (entry.pack, entry.offset) not in forgotten
            and self._is_there(entry)
        )
        end = self.scan.start
        while some := _taken(entries):
            some.sort(key=_order)
            prefetch(index, [(entry.kind, entry.key) for entry in some if entry.kind in SELF_NAMING])
            with index.writing() as txn:
                added = [self._enter(index, txn, entry, new) for entry in some]
                for counter, total in (
                    (UNIQUE_BYTES, sum(unique for unique, _ in added)),
                    (STORED_BYTES, sum(s for _, s in added)),
                ):
                    index.count(txn, counter, total)
                end = max(entry.end for entry in some)
                if not only_contents:
                    index.put_pack_sizes(txn, self.scan.number, end, 0)
        if end == PREFIX_SIZE:
            with index.writing() as txn:
                index.put_pack_sizes(txn, self.scan.number, end, 0)

    def _is_there(self, entry: Entry) -> bool:
        return entry.offset <= self._synced_to or self._is_whole(entry)

    def _is_whole(self, entry: Entry) -> bool:
        """Whether the content of an entry that names itself is really there; the others were checked with their header."""
        if entry.kind not in SELF_NAMING:
            return True
        stored = self.scan.read(entry.stored, entry.offset)
        data = stored if entry.stored == entry.length else unpack(stored, entry.length)
        return data is not None and blake3(data).digest() == entry.key

    def _enter(self, index: Index, txn: Txn, entry: Entry, new: _Entered) -> tuple[int, int]:
        """Enter an entry; how many bytes of chunks there are more, as meant and as stored."""
        match entry.kind:
            case Kind.CHUNK | Kind.DIRECTORY:
                return self._enter_named(index, txn, entry)
            case Kind.CHUNK_LIST:
                key, blob_size = segment_key(entry.key, entry.payload)
                if not index.put_content(txn, entry.kind, key, entry.place, blob_size):
                    index.move_content(txn, entry.kind, key, entry.place)  # the pack where the other lies may be rewritten
                new.blobs.add(entry.key)
            case Kind.PATH_INFO:
                sequence, encoded = parse_path_info(entry.payload)
                output_hash = entry.key[:OUTPUT_HASH_SIZE]
                stored, present = index.path_info_sequence(txn, output_hash), index.path_info_in(txn, output_hash)
                # The newer one has all that is in the older one, unless the row of that was damaged when the newer one was put.
                # Both have the same number where a writer that died before its commit left it to the next one.
                newer, older = (encoded, present) if sequence >= stored else (present, encoded)
                newest, removed = max(sequence, stored), max(index.removed_at(txn, output_hash), 0 if encoded else sequence)
                # Of a removal and a put with the same number, the put is the one that was never committed (see `removal.py`).
                index.put_path_info(txn, output_hash, newest, None if removed == newest else _merged(newer, older))
                new.path_infos.add(output_hash)
                _raise_sequence(index, txn, sequence)
            case Kind.RECORDS | Kind.LOOSE_RECORDS:
                sequence, records = parse_keyed_records(entry.payload)
                for key, value in records.items():
                    if sequence >= index.record_sequence(txn, key):
                        index.put_record(txn, key, sequence, value)
                _raise_sequence(index, txn, sequence)
            case Kind.COMMITTED:
                _raise_sequence(index, txn, parse_accepted(entry.payload)[0])
            case Kind.STAGED | Kind.FORGOTTEN:
                pass
        return 0, 0

    def _enter_named(self, index: Index, txn: Txn, entry: Entry) -> tuple[int, int]:
        """A chunk or a directory. Of two, one may have been found damaged, for which the other was put."""
        place = entry.place
        size, stored = (place.length, place.stored) if entry.kind is Kind.CHUNK else (0, 0)
        if index.put_content(txn, entry.kind, entry.key, place):
            return size, stored
        first = index.place_in(txn, entry.kind, entry.key)
        if first is not None and first != place and self._is_whole(entry):
            index.move_content(txn, entry.kind, entry.key, place)
            return (size - first.length, stored - first.stored) if entry.kind is Kind.CHUNK else (0, 0)
        return 0, 0


def _raise_sequence(index: Index, txn: Txn, sequence: int) -> None:
    index.count(txn, SEQUENCE, max(sequence - index.counter(txn, SEQUENCE), 0))


def prefetch(index: Index, names: Sequence[Name]) -> None:
    """Read the pages of the index where these contents belong, many at a time: a disk takes 0.1 ms for one after the other."""
    if len(names) < _PREFETCHED_FROM:
        return
    step = len(names) // _READERS + 1
    with ThreadPoolExecutor(_READERS) as readers:
        list(readers.map(index.touch, (names[at : at + step] for at in range(0, len(names), step))))


def _taken(entries: Iterator[Entry]) -> list[Entry]:
    """The next entries, as many as are put in one transaction."""
    some: list[Entry] = []
    size = 0
    for entry in entries:
        some.append(_without_payload(entry))
        size += len(some[-1].payload)
        if len(some) >= _ENTRIES_A_TRANSACTION or size >= _BYTES_A_TRANSACTION:
            break
    return some


def _without_payload(entry: Entry) -> Entry:
    """With as much of it as is entered: of a part of a chunk list, what it is called by."""
    return entry._replace(payload=entry.payload[:SEGMENT_HEAD]) if entry.kind is Kind.CHUNK_LIST else entry


def _order(entry: Entry) -> tuple[int, bytes]:
    """Contents by their keys, since neighbours on a page of the index are written while it is at hand; then the rest as it came."""
    return (entry.kind, entry.key) if entry.kind in CONTENTS else (max(CONTENTS) + 1, b"")


def _merged(newer: bytes | None, older: bytes | None) -> bytes | None:
    """The newer path info, with the signatures that only the older one has; the one that there is; or None."""
    if newer is None or older is None:
        return newer or older
    try:
        path_info = PathInfo.stored(newer)
        return replace(path_info.merged(PathInfo.stored(older)), node=path_info.node).encoded
    except StoreError:  # of two with the same number only one can have been acknowledged, and a put of the other was refused since
        return newer
