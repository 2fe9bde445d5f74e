"""Spans: which ranges of packs to read for some places. Pure."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from tvix_store.backends.objectstore.packed.contents import Place

GAP = 512 << 10
"""Bytes between two places that are read with them at most. At 30 ms and 55 MiB a second, a request costs as long as 1.6 MiB. No
span has more of these bytes than of wanted ones."""
LONGEST = 8 << 20
"""Bytes of a span: one stream of an object store gives some 50 MiB a second, so longer ones are read in parts side by side."""


class Span(NamedTuple):
    """A range of a pack that is read by one request."""

    key: str
    start: int
    end: int


def spans_of(places: Iterable[Place]) -> list[Span]:
    """The ranges that cover all places, in the order of packs and offsets."""
    spans: list[Span] = []
    wanted = 0
    for place in sorted({each for each in places if each.stored}):
        last = spans[-1] if spans else None
        if last is not None and last.key == place.key and place.end <= last.end:
            continue
        gap = place.offset - last.end if last is not None else 0
        if last is None or last.key != place.key or gap > min(GAP, wanted + place.stored) or place.end - last.start > LONGEST:
            spans.append(Span(place.key, place.offset, place.end))
            wanted = 0
        else:
            spans[-1] = last._replace(end=place.end)
        wanted += place.stored - max(gap, 0)
    return spans


def sweep_of(places: Sequence[Place]) -> list[Span]:
    """The ranges that cover places which are read one after the other, in the order in which they are first needed.

    Writers work on several files at once, so places that follow each other lie near each other, and not always in this order.
    """
    spans = spans_of(places)
    starts = [(span.key, span.start) for span in spans]
    needed = (bisect_right(starts, (place.key, place.offset)) - 1 for place in places if place.stored)
    return [spans[number] for number in dict.fromkeys(needed)]
