"""How to make a NAR, and a zstd file of it, out of stored frames: a plan, in pieces of about 1 MiB.

    plan     = b"tvxN" u8 version (1), u32 pieces, piece*
    piece    = u32 bytes of the NAR, u32 bytes of the zstd file, BLAKE3 of the bytes of its spans (32 bytes),
               u32 items, u32 spans, u32 bytes of literals, item*, span*, literals
    item     = u32 bytes of the next literal, u32 span, u32 offset in it, u32 bytes of it
    span     = u32 file, u64 offset, u32 size

All numbers are little-endian. Literals and parts of spans, in turn, make the piece's zstd frames; these hold its part of the NAR.
The digest is what makes stored bytes safe to pass on: it was computed when every chunk had been held against its own digest.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from typing import NamedTuple

from blake3 import blake3

from tvix_store.errors import CorruptError
from tvix_store.services.frames import Frame, Span

_HEAD = struct.Struct("<4sBI")
_PIECE = struct.Struct("<II32sIII")
ITEM = struct.Struct("<IIII")
_SPAN = struct.Struct("<IQI")
_MAGIC, _VERSION = b"tvxN", 1
_PIECE_COST, _SPAN_COST, _CHUNK_COST = 500, 150, 420
"""Bytes of memory beside the bytes themselves; measured with 1 GiB of noise."""


class Chunk(NamedTuple):
    """A chunk of a piece: the number of its span, where in that it begins, and where in the piece's part of the NAR."""

    frame: Frame
    span: int
    start: int
    at: int


@dataclass(slots=True)
class Piece:
    """A part of a NAR, of `size` bytes, and of its zstd file, of `zstd_size`.

    digest: of the bytes of its spans, once they were checked
    chunks: what it holds, until then
    """

    size: int
    zstd_size: int
    items: bytes
    spans: list[Span]
    literals: bytes
    digest: bytes = b""
    chunks: list[Chunk] = field(default_factory=list)

    def rendered(self, payloads: Sequence[bytes]) -> bytes:
        """The zstd frames, from the bytes of the spans."""
        views = [memoryview(payload) for payload in payloads]
        literals = memoryview(self.literals)
        parts: list[memoryview] = []
        at = 0
        for literal, span, start, size in ITEM.iter_unpack(self.items):
            if literal:
                parts.append(literals[at : at + literal])
                at += literal
            if size:
                parts.append(views[span][start : start + size])
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

    @property
    def cost(self) -> int:
        """Bytes of memory that it takes, about: less when it was checked, since pieces then lose their chunks."""
        if self.is_checked:
            return self._lasting_cost
        return self._lasting_cost + _CHUNK_COST * sum(len(piece.chunks) for piece in self.pieces)

    @cached_property
    def _lasting_cost(self) -> int:
        return sum(len(piece.items) + len(piece.literals) + _SPAN_COST * len(piece.spans) + _PIECE_COST for piece in self.pieces)

    @property
    def is_checked(self) -> bool:
        # Once it is, it stays so; the cost of all plans is asked for whenever one is added.
        self._seen_checked = self._seen_checked or all(piece.digest for piece in self.pieces)
        return self._seen_checked

    @cached_property
    def etag(self) -> bytes:
        """Names the bytes of the zstd file: 16 bytes."""
        hasher = blake3()
        for piece in self.pieces:
            hasher.update(piece.items).update(piece.literals).update(b"".join(_SPAN.pack(*span) for span in piece.spans))
        return hasher.digest(length=16)

    def encode(self) -> bytes:
        parts = [_HEAD.pack(_MAGIC, _VERSION, len(self.pieces))]
        for piece in self.pieces:
            items = len(piece.items) // ITEM.size
            parts += (
                _PIECE.pack(piece.size, piece.zstd_size, piece.digest, items, len(piece.spans), len(piece.literals)),
                piece.items,
                *(_SPAN.pack(*span) for span in piece.spans),
                piece.literals,
            )
        return b"".join(parts)

    @classmethod
    def decode(cls, data: bytes) -> Plan:
        """Read a plan.

        Raises:
            CorruptError: it is none, or of another version.
        """
        try:
            magic, version, count = _HEAD.unpack_from(data)
            if (magic, version) != (_MAGIC, _VERSION):
                raise CorruptError("a plan of another version")
            pieces: list[Piece] = []
            at = _HEAD.size
            for _ in range(count):
                size, zstd_size, digest, items, spans, literals = _PIECE.unpack_from(data, at)
                at += _PIECE.size
                behind_items = at + items * ITEM.size
                behind_spans = behind_items + spans * _SPAN.size
                end = behind_spans + literals
                places = [Span(*span) for span in _SPAN.iter_unpack(data[behind_items:behind_spans])]
                pieces.append(Piece(size, zstd_size, data[at:behind_items], places, data[behind_spans:end], digest))
                at = end
        except struct.error:
            raise CorruptError("a plan that is cut short") from None
        return cls(pieces)
