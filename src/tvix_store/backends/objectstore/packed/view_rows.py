"""Rows of the view. Each ends with the CRC-32 of its key and itself: a flipped bit must not make content count as stored."""

from __future__ import annotations

import struct
from zlib import crc32

from tvix_store.backends.objectstore.packed.contents import Kind

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
