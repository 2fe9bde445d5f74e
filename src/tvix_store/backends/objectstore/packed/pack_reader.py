"""PackReader: stored bytes from packs, by few requests."""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from time import monotonic

from tvix_store.backends.objectstore.bucket import Bucket
from tvix_store.backends.objectstore.packed.contents import Place
from tvix_store.backends.objectstore.packed.spans import LONGEST, Span, spans_of, sweep_of
from tvix_store.concurrency.single_flight import SingleFlight
from tvix_store.errors import UnavailableError

_AT_ONCE = 16
"""Spans that are read at a time, by all readers of a process: 128 MiB at most."""
_KEPT = 96 << 20
"""Bytes of spans of sweeps that are kept for their readers."""
_AHEAD = 4
"""Spans of a sweep that are read ahead."""
_SWEEPS = 64
"""Sweeps that are remembered."""
_IDLE = 20.0
"""Seconds after which a sweep counts as given up."""

Stored = memoryview | None
"""Stored bytes; None where the pack is not there, or is too short."""


@dataclass(slots=True, eq=False)
class _Sweep:
    """Ranges that are read one after the other, such as those of a NAR."""

    spans: list[Span]
    starts: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    """For each pack: where its ranges start, and their numbers."""
    used: float = 0.0

    def __post_init__(self) -> None:
        for number, span in enumerate(self.spans):
            self.starts.setdefault(span.key, []).append((span.start, number))
        for starts in self.starts.values():
            starts.sort()

    def find(self, place: Place) -> int | None:
        """The number of the range that has all of `place`."""
        starts = self.starts.get(place.key)
        if starts is None:
            return None
        at = bisect_right(starts, (place.offset, len(self.spans))) - 1
        if at < 0:
            return None
        number = starts[at][1]
        return number if place.end <= self.spans[number].end else None


class PackReader:
    """Reads what is wanted in ranges of some MiB. What is announced as a sweep is read ahead."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._turns = asyncio.Semaphore(_AT_ONCE)
        self._sweeps: OrderedDict[Hashable, _Sweep] = OrderedDict()
        self._blocks: OrderedDict[Span, Stored] = OrderedDict()
        self._kept = 0
        self._fetching: SingleFlight[Span, Stored] = SingleFlight(lambda span: asyncio.ensure_future(self._fetch(span)))
        self._ahead: set[asyncio.Task[None]] = set()
        self._ahead_of: set[Span] = set()

    def announce(self, name: Hashable, places: Sequence[Place]) -> None:
        """Expect that these places are read in this order, more or less. An announcement of the same name counts no more."""
        self._sweeps[name] = _Sweep(sweep_of(places))
        self._sweeps.move_to_end(name)
        while len(self._sweeps) > _SWEEPS:
            self._sweeps.popitem(last=False)

    async def read(self, places: Sequence[Place]) -> list[Stored]:
        """What is stored at some places, in their order. Nothing of it is verified.

        Raises:
            UnavailableError, DeniedError: the object store does not give it.
        """
        covering: dict[Place, Span] = {}
        alone: list[Place] = []
        span: Span | None = None
        for place in places:
            if span is None or not (span.key == place.key and span.start <= place.offset and place.end <= span.end):
                span = self._swept(place) if place.stored else None
            if span is not None:
                covering[place] = span
            else:
                alone.append(place)
        exact = spans_of(alone)
        spans = [*dict.fromkeys(covering.values()), *exact]
        own = set(exact)
        read = await asyncio.gather(*(self._fetch(span) if span in own else self._block(span) for span in spans))
        data = dict(zip(spans, read, strict=True))
        starts = [(span.key, span.start) for span in exact]

        def part(place: Place) -> Stored:
            if not place.stored:
                return memoryview(b"")
            span = covering.get(place) or exact[bisect_right(starts, (place.key, place.offset)) - 1]
            whole = data[span]
            some = whole[place.offset - span.start : place.end - span.start] if whole is not None else None
            return some if some is not None and len(some) == place.stored else None

        return [part(place) for place in places]

    async def read_again(self, place: Place) -> Stored:
        """As `read`, from the object store itself."""
        self._forget_blocks(place.key)
        return await self._fetch(Span(place.key, place.offset, place.end)) if place.stored else memoryview(b"")

    async def close(self) -> None:
        for task in self._ahead:
            task.cancel()
        await asyncio.gather(*self._ahead, return_exceptions=True)
        self._blocks.clear()

    def _swept(self, place: Place) -> Span | None:
        """The range of a sweep in which the place lies; what follows in the sweep is read ahead."""
        now = monotonic()
        for sweep in reversed(self._sweeps.values()):
            number = sweep.find(place)
            if number is None:
                continue
            active = sum(each.used > now - _IDLE for each in self._sweeps.values())
            if sweep.used <= now - _IDLE and (active + 1) * 2 * LONGEST > _KEPT:
                return None  # there is no memory for one more
            sweep.used = now
            depth = min(_AHEAD, _KEPT // (2 * LONGEST * max(active, 1)))
            for span in sweep.spans[number + 1 : number + 1 + depth]:
                self._read_ahead(span)
            return sweep.spans[number]
        return None

    def _read_ahead(self, span: Span) -> None:
        if span in self._blocks or span in self._ahead_of:
            return

        async def fetch() -> None:
            try:
                await self._block(span)
            finally:
                self._ahead_of.discard(span)

        self._ahead_of.add(span)
        task = asyncio.create_task(fetch())
        self._ahead.add(task)
        task.add_done_callback(self._ahead.discard)
        task.add_done_callback(lambda done: done.cancelled() or done.exception())  # who needs it meets the error himself

    async def _block(self, span: Span) -> Stored:
        """A range of a sweep, which is kept for a while."""
        kept = self._blocks.get(span)
        if kept is not None:
            self._blocks.move_to_end(span)
            return kept
        data = await self._fetching.result(span)
        if data is not None and span not in self._blocks:
            self._blocks[span] = data
            self._kept += len(data)
            while self._kept > _KEPT:
                _, dropped = self._blocks.popitem(last=False)
                self._kept -= len(dropped or b"")
        return data

    def _forget_blocks(self, key: str) -> None:
        for span in [each for each in self._blocks if each.key == key]:
            self._kept -= len(self._blocks.pop(span) or b"")

    async def _fetch(self, span: Span) -> Stored:
        async with self._turns:
            try:
                return await self._bucket.get_range(span.key, span.start, span.end - span.start)
            except UnavailableError:
                size = await self._bucket.size(span.key)
                if size is not None and size <= span.start:  # what a server says of such a range differs
                    return None
                raise
