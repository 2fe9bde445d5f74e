"""The entries of a pack: a fixed header, then the payload as it is stored.

The header has 56 bytes. All numbers are little-endian.

    magic     4   b"tvxR"
    kind      1   see below
    reserved  3   zero
    stored    4   size of the stored payload
    length    4   size of the payload
    key      32   see below
    check     8   see below

Where `stored` is smaller than `length`, the stored payload is one zstd frame of the payload. The kinds are:

    1  a chunk
    2  a directory
    3  a segment of a blob's chunk list
    4  a path info
    5  records of the record service
    6  unsynced records
    7  staged
    8  committed
    9  forgotten

The key depends on the kind:

    1, 2, 3  digest of the chunk, directory or blob
    4        output hash, and 12 zero bytes
    5, 6, 9  BLAKE3 of the payload
    7, 8     zeros

The check is BLAKE3, keyed with the pack's own key, of the header so far, and of a payload that is not named by its digest. Behind
a damaged place, the check tells an entry from garbage. Its key is random and never leaves the pack. So nobody can plant an entry
inside the content of a file.

An entry "staged" says that the entries behind it are not accepted yet. It has no payload. An entry "committed" says that all
entries before it are accepted. A stage writes an entry "staged", its contents, and, when it is accepted, an entry "committed". Of
a stage that was not accepted nothing comes back when the index is made anew. Stores of earlier versions have neither record.

An entry "committed" may be lost with the end of its pack. So an entry "committed" of another pack may have a payload, which says
the same: a sequence number (u64), and then a number (u32) and the accepted bytes (u64) of each pack. Of two entries that name one
pack, the entry with the higher sequence number counts.

The payload of an entry "forgotten" has the rows, as of `contents.Written`, of damaged content.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

from blake3 import blake3

MAGIC = b"tvxR"
_HEADER = struct.Struct("<4sB3xII32s")
_U64 = struct.Struct("<Q")
_PAIR = struct.Struct("<HI")
_DELETED = 0xFFFFFFFF
"""Stands for the size of a value that was deleted."""
PACK_SIZE = struct.Struct("<IQ")
"""The number of a pack, and a size in bytes."""
CHECK_SIZE = 8
HEADER_SIZE = _HEADER.size + CHECK_SIZE
KEY_SIZE = 32


class Kind(IntEnum):
    CHUNK = 1
    DIRECTORY = 2
    CHUNK_LIST = 3
    PATH_INFO = 4
    RECORDS = 5
    LOOSE_RECORDS = 6
    STAGED = 7
    COMMITTED = 8
    FORGOTTEN = 9


_KINDS = {int(kind): kind for kind in Kind}
SELF_NAMING = frozenset({Kind.CHUNK, Kind.DIRECTORY})
"""Kinds whose key is the digest of their payload, which therefore needs no other check."""

DURABLE = frozenset({Kind.PATH_INFO, Kind.RECORDS})
"""Kinds that are written, and synced, when all that was put before them is on the disk itself."""

SYNCED = DURABLE | {Kind.FORGOTTEN}
"""Kinds that are synced before the index says so."""

CONTENTS = frozenset({Kind.CHUNK, Kind.DIRECTORY, Kind.CHUNK_LIST})
"""Kinds that a stage writes."""

Buffer = bytes | bytearray | memoryview


class Header(NamedTuple):  # of a dataclass, making one takes four times as long
    kind: Kind
    stored: int
    length: int
    key: bytes


@dataclass(frozen=True, slots=True)
class NewRecord:
    """A record to append: `payload` as stored, `length` of it as meant."""

    kind: Kind
    key: bytes
    payload: Buffer
    length: int

    def header(self, pack_key: bytes) -> bytes:
        head = _HEADER.pack(MAGIC, self.kind, len(self.payload), self.length, self.key)
        return head + _check(pack_key, self.kind, head, self.payload)


def mark(kind: Kind) -> NewRecord:
    """The record "staged" or "committed"."""
    return NewRecord(kind, bytes(KEY_SIZE), b"", 0)


def accepted(sequence: int, sizes: Mapping[int, int]) -> NewRecord:
    """The entry "committed" that says how many bytes of other packs are accepted."""
    payload = _U64.pack(sequence) + b"".join(PACK_SIZE.pack(*each) for each in sizes.items())
    return NewRecord(Kind.COMMITTED, bytes(KEY_SIZE), payload, len(payload))


def parse_accepted(payload: bytes) -> tuple[int, dict[int, int]]:
    """The sequence number, and the accepted bytes of packs by their numbers; nothing where there is no payload."""
    if not payload:
        return 0, {}
    return _U64.unpack_from(payload)[0], dict(PACK_SIZE.iter_unpack(payload[_U64.size :]))


def forgotten(rows: bytes) -> NewRecord:
    """The entry of what is forgotten: the rows of contents."""
    return NewRecord(Kind.FORGOTTEN, blake3(rows).digest(), rows, len(rows))


def path_info_record(output_hash: bytes, sequence: int, encoded: bytes | None) -> NewRecord:
    """Path infos change: of two records of one path, the higher sequence number counts. None says that the path was removed."""
    payload = _U64.pack(sequence) + (encoded or b"")
    return NewRecord(Kind.PATH_INFO, output_hash.ljust(KEY_SIZE, b"\0"), payload, len(payload))


def parse_path_info(payload: bytes) -> tuple[int, bytes | None]:
    """The sequence number and the encoded path info; None for a path that was removed."""
    return _U64.unpack_from(payload)[0], payload[_U64.size :] or None


def keyed_records(sequence: int, records: Mapping[bytes, bytes | None], *, durable: bool) -> NewRecord:
    """What one put or deletion of the record service stores; one record, so that it is there as a whole or not at all.

    As with path infos, the higher sequence number counts. The value None says that there is none any more.
    """
    payload = _U64.pack(sequence) + b"".join(
        part
        for key, value in records.items()
        for part in (_PAIR.pack(len(key), _DELETED if value is None else len(value)), key, value or b"")
    )
    return NewRecord(Kind.RECORDS if durable else Kind.LOOSE_RECORDS, blake3(payload).digest(), payload, len(payload))


def parse_keyed_records(payload: bytes) -> tuple[int, dict[bytes, bytes | None]]:
    """The sequence number, and the values by key; None for one that was deleted."""
    records: dict[bytes, bytes | None] = {}
    at = _U64.size
    while at < len(payload):
        key_size, value_size = _PAIR.unpack_from(payload, at)
        at += _PAIR.size
        key = payload[at : at + key_size]
        at += key_size
        if value_size == _DELETED:
            records[key] = None
        else:
            records[key] = payload[at : at + value_size]
            at += value_size
    return _U64.unpack_from(payload)[0], records


def parse_header(data: bytes) -> Header | None:
    """The header at the start of `data`, or None if there is none. Its check is not looked at."""
    if len(data) < HEADER_SIZE or not data.startswith(MAGIC):
        return None
    _, number, stored, length, key = _HEADER.unpack_from(data)
    kind = _KINDS.get(number)
    return None if kind is None else Header(kind, stored, length, key)


def checks_out(pack_key: bytes, header: Header, head: bytes, payload: Buffer) -> bool:
    """Whether the record with the raw header `head` was written with `pack_key`.

    `payload` may be left empty for a kind in SELF_NAMING.
    """
    return head[_HEADER.size : HEADER_SIZE] == _check(pack_key, header.kind, head[: _HEADER.size], payload)


def checked_payload(pack_key: bytes, entry: bytes) -> bytes | None:
    """The payload of an entry that is not named by its digest; None where the entry is damaged."""
    head, payload = entry[:HEADER_SIZE], entry[HEADER_SIZE:]
    header = parse_header(head)
    if header is None or len(payload) != header.stored or not checks_out(pack_key, header, head, payload):
        return None
    return payload


def _check(pack_key: bytes, kind: Kind, head: bytes, payload: Buffer) -> bytes:
    checked = head if kind in SELF_NAMING else b"".join((head, payload))
    return blake3(checked, key=pack_key).digest(length=CHECK_SIZE)
