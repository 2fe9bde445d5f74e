"""How to make a NAR, and a zstd file of it, out of stored frames: a plan, in pieces of about 1 MiB.

    plan     = b"tvxN" u8 version (1), u32 pieces, piece*
    piece    = u32 bytes of the NAR, BLAKE3 of the spans' bytes (32 bytes), u32 spans, span*, recipe (zstd), recipe (plain)
    span     = u32 file, u64 offset, u32 size
    recipe   = u32 bytes of output, u32 items, u32 bytes of literals, item*, literals
    item     = u32 bytes of the next literal, u32 span, u32 offset in it, u32 bytes of it

All numbers are little-endian. A recipe makes bytes of literals and parts of spans, in turn; a plain recipe with no output is none.
The digest is what makes stored bytes safe to pass on: it was computed when every chunk of the piece had been held against its own.
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
_PIECE = struct.Struct("<I32sI")
_RECIPE = struct.Struct("<III")
_ITEM = struct.Struct("<IIII")
_SPAN = struct.Struct("<IQI")
_MAGIC, _VERSION = b"tvxN", 1
_PIECE_COST, _SPAN_COST, _CHUNK_COST = 900, 150, 420
"""Bytes of memory beside the bytes themselves; measured with 1 GiB of noise."""


@dataclass(slots=True)
class Recipe:
    """How to make `size` bytes out of literals and spans."""

    size: int
    items: bytes
    literals: bytes

    def parts(self, payloads: Sequence[bytes]) -> list[bytes | memoryview]:
        """The output, in parts, from the bytes of the spans; a span that is taken whole is itself a part."""
        literals = memoryview(self.literals)
        parts: list[bytes | memoryview] = []
        at = 0
        for literal, span, start, size in _ITEM.iter_unpack(self.items):
            if literal:
                parts.append(literals[at : at + literal])
                at += literal
            if size:
                payload = payloads[span]
                parts.append(payload if size == len(payload) else memoryview(payload)[start : start + size])
        return parts

    def rendered(self, payloads: Sequence[bytes]) -> bytes:
        """The output, from the bytes of the spans."""
        return b"".join(self.parts(payloads))

    @property
    def cost(self) -> int:
        return len(self.items) + len(self.literals)

    def encode(self) -> bytes:
        head = _RECIPE.pack(self.size, len(self.items) // _ITEM.size, len(self.literals))
        return b"".join((head, self.items, self.literals))

    @classmethod
    def decode(cls, data: bytes, at: int) -> tuple[Recipe, int]:
        """The recipe at `at`, and the position behind it."""
        size, items, literals = _RECIPE.unpack_from(data, at)
        at += _RECIPE.size
        behind_items = at + items * _ITEM.size
        end = behind_items + literals
        return cls(size, data[at:behind_items], data[behind_items:end]), end


class RecipeWriter:
    """Puts a recipe together."""

    def __init__(self) -> None:
        self.size = 0
        self._items: list[bytes] = []
        self._literals: list[bytes] = []
        self._literal = 0

    def add_literal(self, data: bytes) -> None:
        self._literals.append(data)
        self._literal += len(data)
        self.size += len(data)

    def add_part(self, span: int, start: int, size: int) -> None:
        """`size` bytes of a span, from `start` on."""
        self._items.append(_ITEM.pack(self._literal, span, start, size))
        self._literal = 0
        self.size += size

    def finish(self) -> Recipe:
        if self._literal:
            self.add_part(0, 0, 0)
        return Recipe(self.size, b"".join(self._items), b"".join(self._literals))


class Chunk(NamedTuple):
    """A chunk of a piece: the number of its span, where in that it begins, and where in the piece's part of the NAR."""

    frame: Frame
    span: int
    start: int
    at: int


@dataclass(slots=True)
class Piece:
    """A part of a NAR, of `size` bytes.

    zstd: makes the frames that it decompresses from
    plain: makes it itself, where all its chunks are stored as they are; else None
    digest: of the bytes of its spans, once they were checked
    chunks: what it holds, until then
    """

    size: int
    spans: list[Span]
    zstd: Recipe
    plain: Recipe | None
    digest: bytes = b""
    chunks: list[Chunk] = field(default_factory=list)

    @property
    def cost(self) -> int:
        plain = self.plain.cost if self.plain else 0
        return self.zstd.cost + plain + _SPAN_COST * len(self.spans) + _PIECE_COST


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
        return list(accumulate(piece.zstd.size for piece in self.pieces))

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
        return sum(piece.cost for piece in self.pieces)

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
            hasher.update(piece.zstd.items).update(piece.zstd.literals).update(_encoded(piece.spans))
        return hasher.digest(length=16)

    def encode(self) -> bytes:
        parts = [_HEAD.pack(_MAGIC, _VERSION, len(self.pieces))]
        for piece in self.pieces:
            parts += (
                _PIECE.pack(piece.size, piece.digest, len(piece.spans)),
                _encoded(piece.spans),
                piece.zstd.encode(),
                (piece.plain or _NO_RECIPE).encode(),
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
                size, digest, spans = _PIECE.unpack_from(data, at)
                at += _PIECE.size
                behind_spans = at + spans * _SPAN.size
                places = [Span(*span) for span in _SPAN.iter_unpack(data[at:behind_spans])]
                zstd, at = Recipe.decode(data, behind_spans)
                plain, at = Recipe.decode(data, at)
                pieces.append(Piece(size, places, zstd, plain if plain.size else None, digest))
        except struct.error:
            raise CorruptError("a plan that is cut short") from None
        return cls(pieces)


_NO_RECIPE = Recipe(0, b"", b"")


def _encoded(spans: Sequence[Span]) -> bytes:
    return b"".join(_SPAN.pack(*span) for span in spans)
