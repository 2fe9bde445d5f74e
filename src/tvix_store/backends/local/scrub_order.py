"""The contents of a store in the order in which they lie in the packs, some at a time.

The index has them in the order of their keys. To find the next ones in a pack, all rows are looked at, and those are kept that lie
nearest. That takes bounded memory, and reads nothing but the index, so nothing that the index names can hide in a damaged pack. A
million rows take a second of CPU. A store of 10 million contents is looked through a hundred times a round.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from struct import Struct
from typing import NamedTuple

from tvix_store.backends.local.index import Index
from tvix_store.backends.local.records import CONTENTS, HEADER_SIZE, Kind

_MOST = 100_000
"""Contents that are kept, 80 bytes each; on the way, twice as many."""
_ROWS = 500
"""Rows that are looked at in one go: half a millisecond."""
_ITEM = Struct(">IQIB")
"""Pack, offset, bytes in the pack, kind; the key follows. Such items stand in the order of the packs."""
_POSITION_SIZE = 12
"""Bytes of an item that tell its position."""


class Position(NamedTuple):
    """A position in all packs of a store."""

    pack: int
    offset: int


class Located(NamedTuple):
    """A content that lay at a position, with its size there (bytes)."""

    position: Position
    size: int
    kind: Kind
    key: bytes


@dataclass(frozen=True, slots=True)
class Stretch:
    """The next contents behind a position.

    total: Bytes of all contents in the packs up to the last one that counts.
    left: Bytes of those behind the position. The stretch has some of them, or all.
    """

    total: int
    left: int
    items: list[bytes]

    def contents(self) -> Iterator[Located]:
        """The contents, in the order of the packs."""
        for item in self.items:
            pack, offset, size, kind = _ITEM.unpack_from(item)
            yield Located(Position(pack, offset), size, Kind(kind), item[_ITEM.size :])


def next_stretch(index: Index, behind: Position, last_pack: int, rest: Callable[[], bool]) -> Stretch | None:
    """The contents behind a position, in packs up to `last_pack`. None where `rest`, called between two goes, tells to stop.

    Raises:
        CorruptError: a page of the index is damaged.
    """
    start = _ITEM.pack(*behind, 0, 0)[:_POSITION_SIZE]
    total = left = 0
    items: list[bytes] = []
    bound = b"\xff" * _POSITION_SIZE
    for kind in sorted(CONTENTS):
        last: bytes | None = b""
        while last is not None:
            rows, last = index.places_behind(kind, last, _ROWS)
            for key, place in rows:
                if place.pack > last_pack:
                    continue
                size = HEADER_SIZE + place.stored
                total += size
                item = _ITEM.pack(place.pack, place.offset, size, kind) + key
                if item[:_POSITION_SIZE] > start:
                    left += size
                    if item < bound:
                        items.append(item)
            if len(items) >= 2 * _MOST:
                items.sort()
                del items[_MOST:]
                bound = items[-1]
            if rest():
                return None
    items.sort()
    return Stretch(total, left, items[:_MOST])
