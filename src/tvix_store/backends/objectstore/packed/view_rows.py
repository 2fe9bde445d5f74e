"""Rows of the view. Each ends with the CRC-32 of its key and itself: a flipped bit must not make content count as stored."""

from __future__ import annotations

import struct
from dataclasses import dataclass, fields
from typing import Self
from zlib import crc32

from tvix_store.backends.objectstore.packed.contents import Kind
from tvix_store.backends.objectstore.packed.pack import Entry

PLACE = struct.Struct("<IIIIQ")
"""Number of the pack, offset, stored length, length; of a segment of a list, the size of the blob."""
_CRC = 4


class DamagedRowError(Exception):
    """A row is not as it was written."""


def sealed(key: bytes, row: bytes) -> bytes:
    """The row as it is stored under `key`."""
    return row + crc32(row, crc32(key)).to_bytes(_CRC, "little")


def opened(key: bytes, stored: bytes) -> bytes:
    """The row that is stored under `key`.

    Raises:
        DamagedRowError: it is damaged.
    """
    row = stored[:-_CRC]
    if crc32(row, crc32(key)).to_bytes(_CRC, "little") != stored[-_CRC:]:
        raise DamagedRowError
    return row


def content_key(kind: int, digest: bytes, start: int = 0) -> bytes:
    """The key of a record. The segments of a list stand in the order of their starts."""
    key = kind.to_bytes(1, "big") + digest
    return key + start.to_bytes(8, "big") if kind == Kind.LIST else key


@dataclass(slots=True)
class Counts:
    """What a bucket holds, as far as the view knows it. `unique`, `stored` and `disk` are bytes."""

    directories: int = 0
    lists: int = 0
    chunks: int = 0
    unique: int = 0
    stored: int = 0
    disk: int = 0

    def add(self, entry: Entry) -> None:
        """Count a record that is new."""
        if entry.kind == Kind.DIRECTORY:
            self.directories += 1
        elif entry.kind == Kind.LIST:
            self.lists += entry.start == 0
        else:
            self.chunks += 1
            self.unique += entry.place.length
            self.stored += entry.place.stored

    def remove(self, kind: int, is_first: bool, stored: int, length: int) -> None:
        """Count no more a record of these lengths; of a list, the first segment counts."""
        if kind == Kind.DIRECTORY:
            self.directories -= 1
        elif kind == Kind.LIST:
            self.lists -= is_first
        else:
            self.chunks -= 1
            self.unique -= length
            self.stored -= stored

    def encode(self) -> bytes:
        return struct.pack("<6Q", *(getattr(self, each.name) for each in fields(self)))

    @classmethod
    def decode(cls, data: bytes) -> Self:
        return cls(*struct.unpack("<6Q", data))
