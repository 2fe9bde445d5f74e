"""How to make a zstd file out of stored frames: a plan, in pieces of about 1 MiB of output.

A piece is literal bytes and parts of spans, in turn:

    plan     = b"tvxZ" u8 version (1), u64 bytes of the file, u32 pieces, piece*
    piece    = u32 bytes of output, BLAKE3 of the output (32 bytes), u32 items, u32 spans, u32 bytes of literals,
               item*, span*, literals
    item     = u32 bytes of the next literal, u32 span, u32 offset in it, u32 bytes of it
    span     = u32 file, u64 offset, u32 size

All numbers are little-endian. The digest is what makes stored bytes safe to pass on: it was computed when every chunk of the piece
had been decompressed and held against its own digest.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate

from blake3 import blake3

from tvix_store.errors import CorruptError
from tvix_store.services.frames import Frame, Span

_HEAD = struct.Struct("<4sBQI")
_PIECE = struct.Struct("<I32sIII")
ITEM = struct.Struct("<IIII")
_SPAN = struct.Struct("<IQI")
_MAGIC, _VERSION = b"tvxZ", 1
_PIECE_COST, _SPAN_COST, _FRAME_COST = 500, 150, 400
"""Bytes of memory beside the bytes themselves; measured with 1 GiB of noise."""


@dataclass(slots=True)
class Piece:
    """A part of the file.

    `frames` are the chunks that it holds, each with the number of its span and where in it they begin; until they were checked, and
    `digest` is set.
    """

    size: int
    items: bytes
    spans: list[Span]
    literals: bytes
    digest: bytes = b""
    frames: list[tuple[Frame, int, int]] = field(default_factory=list)

    def rendered(self, payloads: Sequence[bytes]) -> bytes:
        """The output, from the bytes of the spans."""
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
    """All pieces of a file."""

    pieces: list[Piece]
    _seen_checked: bool = field(default=False, init=False, repr=False, compare=False)

    @cached_property
    def ends(self) -> list[int]:
        """Where in the file each piece ends."""
        return list(accumulate(piece.size for piece in self.pieces))

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return self.ends[-1]

    @property
    def cost(self) -> int:
        """Bytes of memory that it takes, about: less when it was checked, since pieces then lose their chunks."""
        if self.is_checked:
            return self._lasting_cost
        return self._lasting_cost + _FRAME_COST * sum(len(piece.frames) for piece in self.pieces)

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
        """Names the bytes of the file: 16 bytes."""
        hasher = blake3()
        for piece in self.pieces:
            hasher.update(piece.items).update(piece.literals).update(b"".join(_SPAN.pack(*span) for span in piece.spans))
        return hasher.digest(length=16)

    def encode(self) -> bytes:
        parts = [_HEAD.pack(_MAGIC, _VERSION, self.size, len(self.pieces))]
        for piece in self.pieces:
            items = len(piece.items) // ITEM.size
            parts += (
                _PIECE.pack(piece.size, piece.digest, items, len(piece.spans), len(piece.literals)),
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
            magic, version, _, count = _HEAD.unpack_from(data)
            if (magic, version) != (_MAGIC, _VERSION):
                raise CorruptError("a plan of another version")
            pieces: list[Piece] = []
            at = _HEAD.size
            for _ in range(count):
                size, digest, items, spans, literals = _PIECE.unpack_from(data, at)
                at += _PIECE.size
                behind_items = at + items * ITEM.size
                behind_spans = behind_items + spans * _SPAN.size
                places = [Span(*span) for span in _SPAN.iter_unpack(data[behind_items:behind_spans])]
                pieces.append(Piece(size, data[at:behind_items], places, data[behind_spans : behind_spans + literals], digest))
                at = behind_spans + literals
        except struct.error:
            raise CorruptError("a plan that is cut short") from None
        return cls(pieces)
