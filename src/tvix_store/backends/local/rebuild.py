"""Making the index anew from the packs, when it was lost or may be torn by a power cut."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from tvix_store.backends.local.chunk_lists import segment_key
from tvix_store.backends.local.damage import opened, torn_blobs
from tvix_store.backends.local.environment import Txn
from tvix_store.backends.local.index import SEQUENCE, STORED_BYTES, UNIQUE_BYTES, Index
from tvix_store.backends.local.packs import PREFIX_SIZE, PackReader, Place, pack_numbers, pack_path, read_key
from tvix_store.backends.local.progress import Progress
from tvix_store.backends.local.records import (
    CONTENTS,
    DURABLE,
    HEADER_SIZE,
    KEY_SIZE,
    MAGIC,
    SELF_NAMING,
    Kind,
    checks_out,
    parse_header,
    parse_keyed_records,
    parse_path_info,
)
from tvix_store.errors import CorruptError, StoreError
from tvix_store.model.path_info import PathInfo
from tvix_store.model.store_path import OUTPUT_HASH_SIZE

_RECORDS_A_TRANSACTION = 10_000
_WINDOW = 1 << 20
_MAX_CHECKED = 64 << 20
"""Bytes of the largest payload that is read to be checked: chunk list segments have 144 KiB, path infos far less."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Record:
    kind: Kind
    key: bytes
    place: Place


def rebuild(index: Index, packs: Path) -> None:
    """Enter every record of every pack into an empty index. Damaged places are passed over, and logged."""
    reader = PackReader(packs)
    numbers = pack_numbers(packs)
    # Each pack is gone through twice.
    progress = Progress(
        "making the index anew, reading packs", 2 * sum(pack_path(packs, number).stat().st_size for number in numbers)
    )
    for number in numbers:
        path = pack_path(packs, number)
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _Pack(fd, number, read_key(fd, path), path, progress).enter_into(index)
        except CorruptError as error:
            # With its first bytes, the key is lost that tells records from garbage.
            _log.warning("%s; nothing in it is found any more", error)
        finally:
            os.close(fd)
    try:
        _drop_torn_blobs(index, reader)
    finally:
        reader.close()


def _drop_torn_blobs(index: Index, reader: PackReader) -> None:
    """Forget the blobs that lack a chunk, or a part of their list: a power cut may keep one pack, and lose what is in another."""
    with index.reading() as txn:
        progress = Progress("making the index anew, checking chunk lists", index.rows(txn, index.chunk_lists))
        torn = [segments[0].key[:KEY_SIZE] for segments in torn_blobs(index, reader, txn, checked=progress.add)]
    for blob in torn:
        _log.warning("blob b3:%s has lost a chunk; it must be put again", blob.hex())
        with index.writing() as txn:
            index.drop_chunk_list(txn, blob)


class _Pack:
    def __init__(self, fd: int, number: int, key: bytes, path: Path, progress: Progress) -> None:
        self._fd = fd
        self._progress = progress
        self._path = path
        self._number = number
        self._key = key
        self._size = os.fstat(fd).st_size

    def enter_into(self, index: Index) -> None:
        synced_to, self._size = self._surveyed()
        records = self._records(PREFIX_SIZE)
        end, more = PREFIX_SIZE, True
        while more:
            more = False
            with index.writing() as txn:
                for count, record in enumerate(records, 1):
                    if record.place.offset > synced_to and not self._is_whole(record):
                        continue
                    self._enter(index, txn, record)
                    end = record.place.offset + record.place.stored
                    if count == _RECORDS_A_TRANSACTION:
                        more = True
                        break
        with index.writing() as txn:
            index.put_pack_sizes(txn, self._number, end, 0)

    def _surveyed(self) -> tuple[int, int]:
        """Two offsets. Everything before the first had reached the disk when the record there was written: a power cut spared that.
        Behind the second lies what was staged and not accepted.
        """
        durable, staged = 0, self._size
        for record in self._records(PREFIX_SIZE):
            if record.kind is Kind.STAGED:  # the writer of a stage first cuts off what was not accepted before
                staged = record.place.offset - HEADER_SIZE
            elif record.kind not in CONTENTS:
                staged = self._size
            if record.kind in DURABLE:
                durable = record.place.offset
        return durable, staged

    def _records(self, at: int) -> Iterator[_Record]:
        while at + HEADER_SIZE <= self._size:
            head = os.pread(self._fd, HEADER_SIZE, at)
            header = parse_header(head)
            payload = b""
            end = at + HEADER_SIZE + (header.stored if header else 0)
            if header is not None and header.kind not in SELF_NAMING and header.stored <= _MAX_CHECKED and end <= self._size:
                payload = os.pread(self._fd, header.stored, at + HEADER_SIZE)
            if header is None or end > self._size or not checks_out(self._key, header, head, payload):
                behind = self._next_magic(at + 1)
                _log.warning("%s: passed over %d damaged bytes at %d", self._path, behind - at, at)
                self._progress.add(behind - at)
                at = behind
                continue
            yield _Record(header.kind, header.key, Place(self._number, at + HEADER_SIZE, header.stored, header.length))
            self._progress.add(end - at)
            at = end

    def _next_magic(self, at: int) -> int:
        while at < self._size:
            window = os.pread(self._fd, _WINDOW, at)
            found = window.find(MAGIC)
            if found >= 0:
                return at + found
            at += max(len(window) - len(MAGIC) + 1, 1)
        return self._size

    def _is_whole(self, record: _Record) -> bool:
        """Whether the payload of a record that names itself is really there; the others were checked with their header."""
        if record.kind not in SELF_NAMING:
            return True
        return opened(record.key, record.place, self._payload(record.place)) is not None

    def _enter(self, index: Index, txn: Txn, record: _Record) -> None:
        place = record.place
        match record.kind:
            case Kind.CHUNK | Kind.DIRECTORY:
                self._enter_named(index, txn, record)
            case Kind.CHUNK_LIST:
                key, blob_size = segment_key(record.key, self._payload(place))
                index.put_content(txn, record.kind, key, place, blob_size)
            case Kind.PATH_INFO:
                sequence, encoded = parse_path_info(self._payload(place))
                output_hash = record.key[:OUTPUT_HASH_SIZE]
                stored, present = index.path_info_sequence(txn, output_hash), index.path_info_in(txn, output_hash)
                # The newer record has all that is in the older one, unless the row of that was damaged when the newer one was put.
                # Both have the same number where a writer that died before its commit left it to the next one.
                newer, older = (encoded, present) if sequence >= stored else (present, encoded)
                index.put_path_info(txn, output_hash, max(sequence, stored), _merged(newer, older))
                index.count(txn, SEQUENCE, max(sequence - index.counter(txn, SEQUENCE), 0))
            case Kind.STAGED | Kind.COMMITTED:
                pass
            case Kind.RECORDS | Kind.LOOSE_RECORDS:
                sequence, records = parse_keyed_records(self._payload(place))
                for key, value in records.items():
                    if sequence >= index.record_sequence(txn, key):
                        index.put_record(txn, key, sequence, value)
                index.count(txn, SEQUENCE, max(sequence - index.counter(txn, SEQUENCE), 0))

    def _enter_named(self, index: Index, txn: Txn, record: _Record) -> None:
        """A chunk or a directory. Of two, one may have been found damaged, for which the other was put."""
        first = index.place_in(txn, record.kind, record.key)
        if first is not None:
            if not self._is_whole(record):
                return
            index.drop_content(txn, record.kind, record.key, first)
        index.put_content(txn, record.kind, record.key, record.place)
        if record.kind is Kind.CHUNK:
            index.count(txn, UNIQUE_BYTES, record.place.length)
            index.count(txn, STORED_BYTES, record.place.stored)

    def _payload(self, place: Place) -> bytes:
        return os.pread(self._fd, place.stored, place.offset)


def _merged(newer: bytes | None, older: bytes | None) -> bytes:
    """The newer record, with the signatures that only the older one has. At least one of the two is given."""
    if newer is None or older is None:
        return newer or older or b""
    try:
        record = PathInfo.stored(newer)
        return replace(record.merged(PathInfo.stored(older)), node=record.node).encoded
    except StoreError:  # of two with the same number only one can have been acknowledged, and a put of the other was refused since
        return newer
