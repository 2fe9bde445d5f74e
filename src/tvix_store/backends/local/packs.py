"""Packs: append-only files of records. A writer owns the pack that it appends to; anybody may read any pack.

    <store>/packs/<8 hex digits>.pack:  16 bytes magic, 32 bytes key of the record checks, records

See `pack_writer.py` for how a pack is written and taken over, and `records.py` for what stands in it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from struct import Struct

from tvix_store.backends.local.records import KEY_SIZE
from tvix_store.errors import CorruptError

MAGIC = b"tvix-store pack\n"
PREFIX_SIZE = len(MAGIC) + KEY_SIZE
_PLACE = Struct("<IQII")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a payload lies: pack number, offset, stored and meant length (bytes). Stored shorter than meant is one zstd frame."""

    pack: int
    offset: int
    stored: int
    length: int

    SIZE = _PLACE.size

    def to_bytes(self) -> bytes:
        return _PLACE.pack(self.pack, self.offset, self.stored, self.length)

    @classmethod
    def from_bytes(cls, data: bytes) -> Place:
        return cls(*_PLACE.unpack_from(data))


def pack_path(directory: Path, number: int) -> Path:
    return directory / f"{number:08x}.pack"


def pack_numbers(directory: Path) -> list[int]:
    """The numbers of all packs, in order."""
    return sorted(int(name[:-5], 16) for name in os.listdir(directory) if len(name) == 13 and name.endswith(".pack"))


def read_key(fd: int, path: Path) -> bytes:
    """The key of a pack's record checks.

    Raises:
        CorruptError: the file is not a pack.
    """
    prefix = os.pread(fd, PREFIX_SIZE, 0)
    if len(prefix) != PREFIX_SIZE or not prefix.startswith(MAGIC):
        raise CorruptError(f"{path} is not a pack: its first bytes are wrong")
    return prefix[len(MAGIC) :]
