"""How to make a NAR, and a zstd file of it, out of stored frames: a plan, in pieces of about 1 MiB.

A plan has a head, and then its pieces:

    b"tvxN", u8 version (2), u32 pieces, piece*

A piece has sizes and numbers, and then its items, the digests of its chunks (32 bytes each), and its literals:

    u32 bytes of the NAR, u32 bytes of the zstd file, BLAKE3 of the latter bytes (32 bytes),
    u32 items, u32 chunks, u32 bytes of literals, item*, digest*, literals

An item is a literal, and then a part of a stored chunk:

    u32 bytes of the literal, u32 number of the chunk, u32 offset in the stored chunk, u32 bytes of the part

All numbers are little-endian. Literals and parts of chunks, in turn, make the piece's zstd frames; these hold its part of the NAR.
A plan says which chunks, and not where they lie. The digest of a piece is what makes stored bytes safe to pass on: it was computed
when every chunk had been held against its own digest.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from typing import NamedTuple

from blake3 import blake3

from tvix_store.errors import CorruptError
from tvix_store.services.frames import Run

VERSION = 2
"""Version 1 said where in packs the chunks lie."""
ITEM = struct.Struct("<IIII")
EXTENT = struct.Struct("<II")
DIGEST_SIZE = 32
_HEAD = struct.Struct("<4sBI")
_PIECE = struct.Struct("<II32sIII")
_MAGIC = b"tvxN"
_PIECE_COST = 500
"""Bytes of memory that a piece takes beside its bytes."""


class Chunk(NamedTuple):
    """A chunk of a piece: its digest, and where in the piece's part of the NAR it begins and ends."""

    digest: bytes
    begin: int
    end: int


@dataclass(slots=True)
class Piece:
    """A part of a NAR, of `size` bytes, and of its zstd file, of `zstd_size`.

    digest: of its part of the zstd file, once it was checked
    extents: where in the NAR its chunks begin and end, until then
    """

    size: int
    zstd_size: int
    items: bytes
    run: Run
    literals: bytes
    digest: bytes = b""
    extents: bytes = b""

    @property
    def chunks(self) -> Iterator[Chunk]:
        """Its chunks, as long as it is not checked."""
        for number, (begin, end) in enumerate(EXTENT.iter_unpack(self.extents)):
            yield Chunk(self.run[DIGEST_SIZE * number : DIGEST_SIZE * (number + 1)], begin, end)

    @property
    def cost(self) -> int:
        """Bytes of memory that it takes, about."""
        return len(self.items) + len(self.run) + len(self.literals) + len(self.extents) + _PIECE_COST

    def rendered(self, stored: Sequence[memoryview]) -> bytes:
        """The zstd frames, from what is stored of the chunks."""
        literals = self.literals
        parts: list[bytes | memoryview] = []
        at = 0
        for literal, chunk, start, size in ITEM.iter_unpack(self.items):
            if literal:
                parts.append(literals[at : at + literal])
                at += literal
            if size:
                part = stored[chunk]
                parts.append(part if size == len(part) else part[start : start + size])
        return b"".join(parts)


@dataclass
class Plan:
    """All pieces of a NAR."""

    pieces: list[Piece]
    _seen_checked: bool = field(default=False, init=False, repr=False, compare=False)

    @cached_property
    def ends(self) -> list[int]:
        """Where in the NAR each piece ends."""
        return list(accumulate(piece.size for piece in self.pieces))

    @cached_property
    def zstd_ends(self) -> list[int]:
        """Where in the zstd file each piece ends."""
        return list(accumulate(piece.zstd_size for piece in self.pieces))

    @property
    def size(self) -> int:
        """Bytes of the NAR."""
        return self.ends[-1]

    @property
    def zstd_size(self) -> int:
        """Bytes of the zstd file."""
        return self.zstd_ends[-1]

    @cached_property
    def cost(self) -> int:
        """Bytes of memory that it takes, about, before it is checked: a tenth more than later."""
        return sum(piece.cost for piece in self.pieces)

    @property
    def is_checked(self) -> bool:
        """Whether every piece has its digest. Once it is so, it stays so."""
        self._seen_checked = self._seen_checked or all(piece.digest for piece in self.pieces)
        return self._seen_checked

    @cached_property
    def recipe(self) -> bytes:
        """Names what the zstd file is made of (32 bytes): the bytes themselves, as long as no chunk is stored anew."""
        hasher = blake3()
        for piece in self.pieces:
            hasher.update(piece.items).update(piece.run).update(piece.literals)
        return hasher.digest()

    def encode(self) -> bytes:
        parts = [_HEAD.pack(_MAGIC, VERSION, len(self.pieces))]
        for piece in self.pieces:
            items, chunks = len(piece.items) // ITEM.size, len(piece.run) // DIGEST_SIZE
            parts += (
                _PIECE.pack(piece.size, piece.zstd_size, piece.digest, items, chunks, len(piece.literals)),
                piece.items,
                piece.run,
                piece.literals,
            )
        return b"".join(parts)

    @classmethod
    def decode(cls, data: bytes) -> Plan | None:
        """Read a plan, all of which is checked; None where it is of another version.

        Raises:
            CorruptError: it is none.
        """
        try:
            magic, version, count = _HEAD.unpack_from(data)
            if magic != _MAGIC:
                raise CorruptError("what is kept as a plan is none")
            if version != VERSION:
                return None
            pieces: list[Piece] = []
            at = _HEAD.size
            for _ in range(count):
                size, zstd_size, digest, items, chunks, literals = _PIECE.unpack_from(data, at)
                at += _PIECE.size
                behind_items = at + items * ITEM.size
                behind_run = behind_items + chunks * DIGEST_SIZE
                end = behind_run + literals
                pieces.append(
                    Piece(size, zstd_size, data[at:behind_items], data[behind_items:behind_run], data[behind_run:end], digest)
                )
                at = end
        except struct.error:
            raise CorruptError("a plan that is cut short") from None
        if at != len(data):
            raise CorruptError("a plan that is cut short, or too long")
        return cls(pieces)
