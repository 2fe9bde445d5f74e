"""Making the index anew from the packs, when it was lost or may be torn by a power cut."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import zstandard
from blake3 import blake3

from tvix_store.backends.local.chunk_lists import segment_key
from tvix_store.backends.local.index import SEQUENCE, STORED_BYTES, UNIQUE_BYTES, Index, Txn
from tvix_store.backends.local.packs import PREFIX_SIZE, Place, pack_numbers, pack_path, read_key
from tvix_store.backends.local.records import (
    HEADER_SIZE,
    MAGIC,
    SELF_NAMING,
    Kind,
    checks_out,
    parse_header,
    parse_path_info,
)
from tvix_store.errors import CorruptError
from tvix_store.model.store_path import OUTPUT_HASH_SIZE

_RECORDS_A_TRANSACTION = 10_000
_WINDOW = 1 << 20


@dataclass(frozen=True, slots=True)
class _Record:
    kind: Kind
    key: bytes
    place: Place


def rebuild(index: Index, packs: Path) -> None:
    """Enter every record of every pack into an empty index. Damaged places are passed over."""
    for number in pack_numbers(packs):
        path = pack_path(packs, number)
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _Pack(fd, number, read_key(fd, path)).enter_into(index)
        except CorruptError:
            continue  # its first bytes, and with them the key that tells records from garbage, are lost
        finally:
            os.close(fd)


class _Pack:
    def __init__(self, fd: int, number: int, key: bytes) -> None:
        self._fd = fd
        self._number = number
        self._key = key
        self._size = os.fstat(fd).st_size

    def enter_into(self, index: Index) -> None:
        synced_to = self._last_path_info()
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

    def _last_path_info(self) -> int:
        """Where the last path info lies. All before it reached the disk before it was written, so a power cut spared it."""
        return max((record.place.offset for record in self._records(PREFIX_SIZE) if record.kind is Kind.PATH_INFO), default=0)

    def _records(self, at: int) -> Iterator[_Record]:
        while at + HEADER_SIZE <= self._size:
            head = os.pread(self._fd, HEADER_SIZE, at)
            header = parse_header(head)
            payload = b""
            if header is not None and header.kind not in SELF_NAMING:
                payload = os.pread(self._fd, header.stored, at + HEADER_SIZE)
            end = at + HEADER_SIZE + (header.stored if header else 0)
            if header is None or end > self._size or not checks_out(self._key, header, head, payload):
                at = self._next_magic(at + 1)
                continue
            yield _Record(header.kind, header.key, Place(self._number, at + HEADER_SIZE, header.stored, header.length))
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
        data = self._payload(record.place)
        if record.place.stored != record.place.length:
            try:
                if zstandard.frame_content_size(data) != record.place.length:
                    return False
                data = zstandard.ZstdDecompressor().decompress(data)
            except zstandard.ZstdError:
                return False
        return blake3(data).digest() == record.key

    def _enter(self, index: Index, txn: Txn, record: _Record) -> None:
        place = record.place
        match record.kind:
            case Kind.CHUNK:
                if index.put_content(txn, record.kind, record.key, place):
                    index.count(txn, UNIQUE_BYTES, place.length)
                    index.count(txn, STORED_BYTES, place.stored)
            case Kind.DIRECTORY:
                index.put_content(txn, record.kind, record.key, place)
            case Kind.CHUNK_LIST:
                key, blob_size = segment_key(record.key, self._payload(place))
                index.put_content(txn, record.kind, key, place, blob_size)
            case Kind.PATH_INFO:
                sequence, encoded = parse_path_info(self._payload(place))
                output_hash = record.key[:OUTPUT_HASH_SIZE]
                if sequence > index.path_info_sequence(txn, output_hash):
                    index.put_path_info(txn, output_hash, sequence, encoded)
                index.count(txn, SEQUENCE, max(sequence - index.counter(txn, SEQUENCE), 0))

    def _payload(self, place: Place) -> bytes:
        return os.pread(self._fd, place.stored, place.offset)
