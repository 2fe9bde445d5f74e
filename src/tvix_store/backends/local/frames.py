"""LocalFrames: the chunks of a local store as they lie in its packs."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat
from struct import Struct
from typing import TypeVar

from tvix_store.backends.local.blobs import LocalBlobs
from tvix_store.backends.local.engine import Engine
from tvix_store.backends.local.packs import Place
from tvix_store.errors import CorruptError, NotFoundError
from tvix_store.model.chunk_table import ChunkTable
from tvix_store.model.digest import Digest
from tvix_store.services.blobs import Chunk
from tvix_store.services.frames import Frame, Run
from tvix_store.services.granular import wrong_size
from tvix_store.services.listed import listed_frames

T = TypeVar("T")
F = TypeVar("F", bound=Sequence[Frame])

_DIGEST = 32
_GAP = 8 << 10
"""Bytes between two chunks of a pack that are read with them: less than a second read costs."""
_MAX_SPAN = 4 << 20
"""Bytes that are read at a time."""
_KEPT = 16 << 20
"""Bytes of memory for where runs lie. A run of the 65 chunks of a MiB of a Go toolchain takes 3 kB."""
_SPAN_COST, _LOCATED_COST = 200, 400
"""Bytes that a span, and a run beside its parts, take in memory."""
_PART = Struct("=III")


@dataclass(frozen=True, slots=True)
class _Located:
    """Where the chunks of a run lie.

    spans: The places to read.
    parts: For each chunk, the number of its span, and its begin and end in the span.
    """

    spans: list[Place]
    parts: bytes

    @property
    def cost(self) -> int:
        return len(self.parts) + _SPAN_COST * len(self.spans) + _LOCATED_COST


class LocalFrames:
    """The StoredFrames of a local store. It remembers where runs lie: to look up a chunk costs as much as to read it."""

    def __init__(self, engine: Engine, blobs: LocalBlobs) -> None:
        self._engine = engine
        self._blobs = blobs
        self._located: dict[Run, _Located] = {}
        self._cost = 0

    async def find(self, digests: Sequence[Digest]) -> list[list[Frame]]:
        return await self._engine.in_thread(self._find, digests, None, _joined)

    async def read(self, runs: Sequence[Run], use: Callable[[list[list[memoryview]]], T]) -> T:
        known = [located for run in runs if (located := self._located.get(run)) is not None]
        if len(known) == len(runs):
            try:
                used: T = await self._engine.in_thread(self._used, known, use)
                return used
            except CorruptError:  # it may lie elsewhere by now
                self._forget(runs)
        result: T
        found, result = await self._engine.in_thread(self._found_and_used, runs, use)
        self._keep(runs, found)
        return result

    async def find_sized(self, blobs: Sequence[Chunk]) -> list[Sequence[Frame]]:
        """As `find`, of blobs whose sizes are stated. A long list is kept as a table.

        Raises:
            InvalidError: one has another size. Its list was not read.
        """
        digests, sizes = [blob.digest for blob in blobs], [blob.size for blob in blobs]
        return await self._engine.in_thread(self._find, digests, sizes, _listed)

    async def read_once(self, chunks: Sequence[Frame], use: Callable[[list[memoryview]], T]) -> T:
        """As `read`, of one run that is not remembered: chunks whose lengths are stated.

        Raises:
            InvalidError: one has another length. Nothing was read.
        """
        run = b"".join(chunk.digest for chunk in chunks)
        lengths = [chunk.length for chunk in chunks]
        result: T
        _, result = await self._engine.in_thread(self._found_and_used, [run], lambda stored: use(stored[0]), lengths)
        return result

    def _find(
        self, digests: Sequence[Digest], sizes: Sequence[int] | None, gathered: Callable[[Iterator[list[Frame]]], F]
    ) -> list[F]:
        places = self._engine.index.places_of_chunks([digest.raw for digest in digests])
        found: list[F] = []
        for digest, place, size in zip(digests, places, sizes or repeat(None, len(digests)), strict=True):
            if place is None:
                found.append(gathered(self._parts(digest, size)))
                continue
            if size is not None and size != place[3]:
                raise wrong_size("blob", digest, size)
            found.append(gathered(iter([[_frame(digest.raw, place)]])))
        return found

    def _parts(self, digest: Digest, size: int | None) -> Iterator[list[Frame]]:
        """The chunks of a cut blob, a segment of its list at a time."""
        index = self._engine.index
        found = index.chunk_list_segment(digest.raw, 0)
        if found is None:
            raise NotFoundError("blob", digest)
        if size is not None and size != found[0]:
            raise wrong_size("blob", digest, size)
        for segment in self._blobs.segments(digest, found[0]):
            chunks = [chunk for chunk, _ in segment.entries]
            frames: list[Frame] = []
            for chunk, place in zip(chunks, index.places_of_chunks(chunks), strict=True):
                if place is None:
                    self._engine.forget_torn(digest.raw)
                    raise CorruptError(f"blob {digest} is damaged: its chunk b3:{chunk.hex()} is missing")
                frames.append(_frame(chunk, place))
            yield frames

    def _found_and_used(
        self, runs: Sequence[Run], use: Callable[[list[list[memoryview]]], T], lengths: Sequence[int] | None = None
    ) -> tuple[list[_Located], T]:
        found = [self._locate(run, lengths) for run in runs]
        try:
            return found, self._used(found, use)
        except CorruptError:
            now = [self._locate(run) for run in runs]
            if now == found:
                raise
            return now, self._used(now, use)

    def _used(self, located: list[_Located], use: Callable[[list[list[memoryview]]], T]) -> T:
        return use([self._read(each) for each in located])

    def _read(self, located: _Located) -> list[memoryview]:
        reader = self._engine.reader
        try:
            views = [memoryview(reader.read(span)) for span in located.spans]
        except CorruptError:
            self._engine.lost_packs.suspect()
            raise
        return [views[span][start:end] for span, start, end in _PART.iter_unpack(located.parts)]

    def _locate(self, run: Run, lengths: Sequence[int] | None = None) -> _Located:
        """Chunks that lie near each other, in the order of the run, are read together."""
        chunks = [run[at : at + _DIGEST] for at in range(0, len(run), _DIGEST)]
        spans: list[Place] = []
        parts = array("I")
        pack = begin = end = 0
        places = self._engine.index.places_of_chunks(chunks)
        for chunk, place, wanted in zip(chunks, places, lengths or repeat(None, len(chunks)), strict=True):
            if place is None:
                raise NotFoundError("chunk", f"b3:{chunk.hex()}")
            its_pack, offset, stored, length = place
            if wanted is not None and wanted != length:
                raise wrong_size("chunk", Digest(chunk), wanted)
            if its_pack != pack or not 0 <= offset - end <= _GAP or offset + stored - begin > _MAX_SPAN:
                if parts:
                    spans.append(Place(pack, begin, end - begin, 0))
                pack, begin = its_pack, offset
            end = offset + stored
            parts.extend((len(spans), offset - begin, end - begin))
        if parts:
            spans.append(Place(pack, begin, end - begin, 0))
        return _Located(spans, parts.tobytes())

    def _keep(self, runs: Sequence[Run], found: Sequence[_Located]) -> None:
        for run, located in zip(runs, found, strict=True):
            self._forget((run,))
            self._located[run] = located
            self._cost += located.cost + len(run)
        while self._cost > _KEPT:
            self._forget((next(iter(self._located)),))

    def _forget(self, runs: Sequence[Run]) -> None:
        for run in runs:
            located = self._located.pop(run, None)
            if located is not None:
                self._cost -= located.cost + len(run)


def _frame(digest: bytes, place: tuple[int, int, int, int]) -> Frame:
    _, _, stored, length = place
    return Frame(digest, length, stored)


def _joined(parts: Iterator[list[Frame]]) -> list[Frame]:
    return [frame for part in parts for frame in part]


def _listed(parts: Iterator[list[Frame]]) -> Sequence[Frame]:
    first = next(parts)
    others = [ChunkTable.of(part) for part in parts]
    return listed_frames(ChunkTable.joined([ChunkTable.of(first), *others])) if others else first
