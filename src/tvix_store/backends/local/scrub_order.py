"""The contents of a store in the order in which they lie in the packs, some at a time.

The index has them in the order of their keys. To find the next ones in the packs, all rows are looked at, and those are kept that
lie nearest. That takes bounded memory, and reads nothing but the index. So nothing that the index names can hide in a damaged pack.
A million rows take two seconds of CPU. In a store of 10 million contents, that is done fifty times a round, or a hundred times.

They are kept by the region of a pack in which they lie, and each region is sorted when it is its turn. To sort all of them at once
would hold up the event loop for a second.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from struct import Struct
from typing import NamedTuple

from tvix_store.backends.local.index import Index
from tvix_store.backends.local.records import CONTENTS, HEADER_SIZE, Kind

_MOST = 200_000
"""Contents that are kept, 90 bytes each; on the way, twice as many."""
_ROWS = 300
"""Rows that are looked at in one go: 0.7 ms."""
_ITEM = Struct(">QIB")
"""Offset, bytes in the pack, kind; the key follows. The items of a region stand in the order of the pack."""
_REGION_BITS = 20
"""Of an offset within a region of 1 MiB. It has 18,000 items at most."""
_PACK_BITS = 64 - _REGION_BITS


class Position(NamedTuple):
    """A position in all packs of a store."""

    pack: int
    offset: int

    @property
    def region(self) -> int:
        """The number of its region. Regions are in the order of the packs."""
        return self.pack << _PACK_BITS | self.offset >> _REGION_BITS


class Located(NamedTuple):
    """A content that lay at a position, with its size there (bytes)."""

    position: Position
    size: int
    kind: Kind
    key: bytes


@dataclass(slots=True)
class Stretch:
    """The next contents behind a position.

    total: Bytes of all contents in the packs up to the last one that counts.
    left: Bytes of those behind the position. The stretch has some of them, or all.
    """

    total: int
    left: int
    _regions: dict[int, list[bytes]]

    @property
    def is_empty(self) -> bool:
        return not self._regions

    def contents(self) -> Iterator[Located]:
        """Take out the contents, in the order of the packs."""
        for region in sorted(self._regions):
            for item in sorted(self._regions.pop(region)):
                offset, size, kind = _ITEM.unpack_from(item)
                yield Located(Position(region >> _PACK_BITS, offset), size, Kind(kind), item[_ITEM.size :])


def next_stretch(index: Index, behind: Position, last_pack: int, rest: Callable[[], bool]) -> Stretch | None:
    """The contents behind a position, in packs up to `last_pack`. None where `rest`, called between two goes, tells to stop.

    Raises:
        CorruptError: a page of the index is damaged.
    """
    total = left = count = 0
    regions: dict[int, list[bytes]] = {}
    bound = Position(last_pack + 1, 0).region
    for kind in sorted(CONTENTS):
        last: bytes | None = b""
        while last is not None:
            rows, last = index.places_behind(kind, last, _ROWS)
            for key, pack, offset, stored in rows:
                if pack > last_pack:
                    continue
                size = HEADER_SIZE + stored
                total += size
                if (pack, offset) > behind:
                    left += size
                    region = pack << _PACK_BITS | offset >> _REGION_BITS
                    if region < bound:
                        regions.setdefault(region, []).append(_ITEM.pack(offset, size, kind) + key)
                        count += 1
            if count >= 2 * _MOST:
                bound = _keep_the_first(regions, bound)
                count = sum(map(len, regions.values()))
            if rest():
                return None
    _keep_the_first(regions, bound)
    return Stretch(total, left, regions)


def _keep_the_first(regions: dict[int, list[bytes]], bound: int) -> int:
    """Keep the first region, and those behind it as far as there is room. The first region that is not kept, else `bound`."""
    count = 0
    for n, region in enumerate(sorted(regions)):
        count += len(regions[region])
        if n and count > _MOST:
            del regions[region]
            bound = min(bound, region)
    return bound
