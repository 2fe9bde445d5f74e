"""Making the index anew from the packs, when it was lost or may be torn by a power cut."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tvix_store.backends.local.chunk_lists import chunk_list_key, parse_segment, segment_key
from tvix_store.backends.local.damage import opened
from tvix_store.backends.local.index import SEQUENCE, STORED_BYTES, UNIQUE_BYTES, Index, Txn
from tvix_store.backends.local.packs import PREFIX_SIZE, PackReader, Place, pack_numbers, pack_path, read_key
from tvix_store.backends.local.records import (
    CONTENT,
    DURABLE,
    HEADER_SIZE,
    MAGIC,
    SELF_NAMING,
    Kind,
    checks_out,
    parse_header,
    parse_keyed_records,
    parse_path_info,
)
from tvix_store.errors import ConflictError, CorruptError
from tvix_store.model.directory import Directory
from tvix_store.model.nodes import FileNode, Node, SymlinkNode
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

    @property
    def begin(self) -> int:
        return self.place.offset - HEADER_SIZE

    @property
    def end(self) -> int:
        return self.place.offset + self.place.stored


def rebuild(index: Index, packs: Path, *, after_power_cut: bool) -> None:
    """Enter every record of every pack into an empty index. Damaged places are passed over, and logged.

    After a power cut, what was written last may be there in any part. A path info, behind something that is not, is entered only if
    its content is there: it was never acknowledged, unless its content was lost otherwise.
    """
    reader = PackReader(packs)
    doubtful: list[_PathInfo] = []
    for number in pack_numbers(packs):
        path = pack_path(packs, number)
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            doubtful += _Pack(fd, number, read_key(fd, path), path).enter_into(index, after_power_cut=after_power_cut)
        except CorruptError as error:
            # With its first bytes, the key is lost that tells records from garbage.
            _log.warning("%s; nothing in it is found any more", error)
        finally:
            os.close(fd)
    try:
        _drop_torn_blobs(index, reader)
        for each in doubtful:
            if _is_complete(index, reader, PathInfo.stored(each.encoded).node):
                with index.writing() as txn:
                    _enter_path_info(index, txn, each)
            else:
                _log.warning("a path info came to the disk without its content; it was not acknowledged, and is left out")
    finally:
        reader.close()


def _drop_torn_blobs(index: Index, reader: PackReader) -> None:
    """Forget the blobs that lack a chunk: a power cut may keep a blob's list, in one pack, and lose a chunk in another."""
    with index.reading() as txn:
        torn = {
            blob
            for blob, place in index.chunk_list_segments(txn)
            if any(txn.get(chunk, db=index.chunks) is None for chunk, _ in parse_segment(reader.read_checked(place)).entries)
        }
    for blob in torn:
        _log.warning("blob b3:%s has lost a chunk; it must be put again", blob.hex())
        with index.writing() as txn:
            index.drop_chunk_list(txn, blob)


@dataclass(frozen=True, slots=True)
class _PathInfo:
    """A path info as its record has it."""

    output_hash: bytes
    sequence: int
    encoded: bytes


def _is_complete(index: Index, reader: PackReader, root: Node) -> bool:
    """Whether all that a node reaches is in the index."""
    seen: set[bytes] = set()
    waiting = [root]
    with index.reading() as txn:
        while waiting:
            node = waiting.pop()
            if isinstance(node, SymlinkNode) or node.digest.raw in seen:
                continue
            digest = node.digest.raw
            seen.add(digest)
            if isinstance(node, FileNode):
                if txn.get(digest, db=index.chunks) is None and txn.get(chunk_list_key(digest, 0), db=index.chunk_lists) is None:
                    return False
                continue
            place = index.place_in(txn, Kind.DIRECTORY, digest)
            data = opened(digest, place, reader.read(place)) if place is not None else None
            if data is None:
                return False
            waiting += Directory.stored(node.digest, data).entries.values()
    return True


class _Pack:
    def __init__(self, fd: int, number: int, key: bytes, path: Path) -> None:
        self._fd = fd
        self._path = path
        self._number = number
        self._key = key
        self._size = os.fstat(fd).st_size

    def enter_into(self, index: Index, *, after_power_cut: bool) -> list[_PathInfo]:
        """Enter all records but the path infos that it answers, whose content has to be looked for first."""
        synced_to = self._synced_to()
        records = self._records(PREFIX_SIZE)
        end, more = PREFIX_SIZE, True
        is_torn = False
        doubtful: list[_PathInfo] = []
        while more:
            more = False
            with index.writing() as txn:
                for count, record in enumerate(records, 1):
                    is_synced = record.end <= synced_to
                    is_whole = is_synced or self._is_whole(record)
                    is_torn = is_torn or (after_power_cut and not (is_synced or (is_whole and record.begin == end)))
                    if is_torn and record.kind is Kind.PATH_INFO:
                        doubtful.append(self._path_info(record))
                    elif is_whole:
                        self._enter(index, txn, record)
                    end = record.end
                    if count == _RECORDS_A_TRANSACTION:
                        more = True
                        break
        if is_torn:
            # Not to be gone on with: what is written behind a durable record tells that all before it was synced.
            os.fdatasync(self._fd)
        else:
            with index.writing() as txn:
                index.put_pack_sizes(txn, self._number, end, 0)
        return doubtful

    def _synced_to(self) -> int:
        """Up to where everything had reached the disk: a power cut spared that.

        A durable record may have come there before its sync was over. That it was over shows in the content behind it.
        """
        durable = synced = 0
        for record in self._records(PREFIX_SIZE):
            if record.kind in DURABLE:
                durable = record.end
            elif record.kind in CONTENT:
                synced = durable
        return synced

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
                at = behind
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
                _enter_path_info(index, txn, self._path_info(record))
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

    def _path_info(self, record: _Record) -> _PathInfo:
        return _PathInfo(record.key[:OUTPUT_HASH_SIZE], *parse_path_info(self._payload(record.place)))

    def _payload(self, place: Place) -> bytes:
        return os.pread(self._fd, place.stored, place.offset)


def _enter_path_info(index: Index, txn: Txn, found: _PathInfo) -> None:
    encoded = found.encoded
    stored = index.path_info_sequence(txn, found.output_hash)
    if found.sequence == stored:
        # A writer that died before its commit left this number to the next one.
        encoded = _merged(index.path_info_in(txn, found.output_hash), encoded)
    if found.sequence >= stored:
        index.put_path_info(txn, found.output_hash, found.sequence, encoded)
    index.count(txn, SEQUENCE, max(found.sequence - index.counter(txn, SEQUENCE), 0))


def _merged(one: bytes | None, other: bytes) -> bytes:
    try:
        return other if one is None else PathInfo.stored(one).merged(PathInfo.stored(other)).encoded
    except ConflictError:  # only one of them can have been acknowledged, and a put of the other was refused since
        return other
