"""Rows of the index: each ends with a check, so that a flipped bit is noticed and never believed.

The check is the CRC-32 of the table's name, the key and the row, in 4 bytes (little-endian). It finds every flip of up to 32 bits
that lie together, a row that stands under another key, and one that stands in another table.
"""

from __future__ import annotations

from zlib import crc32

import lmdb

CHECK_SIZE = 4
"""Bytes at the end of a row."""
RESIDUE = 0x2144DF1C
"""The CRC-32 of any bytes that end with their own CRC-32."""


class Table:
    """A table of the index: its name, and its handle in LMDB."""

    __slots__ = ("handle", "name", "seed")

    def __init__(self, name: bytes, handle: lmdb._Database) -> None:
        self.name = name
        self.handle = handle
        self.seed = crc32(name)

    def with_check(self, key: bytes, row: bytes) -> bytes:
        """The row as it is stored under `key`."""
        return row + crc32(row, crc32(key, self.seed)).to_bytes(CHECK_SIZE, "little")

    def is_whole(self, key: bytes, row: bytes) -> bool:
        """Whether a stored row is what was put under `key`."""
        return crc32(row, crc32(key, self.seed)) == RESIDUE
