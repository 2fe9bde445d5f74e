"""LocalFrames: the chunks of a local store as they lie in its packs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import suppress

from tvix_store.backends.local.blobs import LocalBlobs
from tvix_store.backends.local.engine import Engine
from tvix_store.backends.local.keyed_records import LocalRecords
from tvix_store.backends.local.packs import Place
from tvix_store.errors import CorruptError, NotFoundError, StoreError
from tvix_store.model.digest import Digest
from tvix_store.services.frames import Frame, Span


class LocalFrames:
    """The StoredFrames of a local store. A plan is a blob like others, whose digest stands in a record."""

    def __init__(self, engine: Engine, blobs: LocalBlobs, records: LocalRecords) -> None:
        self._engine = engine
        self._blobs = blobs
        self._records = records

    @property
    def generation(self) -> int:
        return self._engine.index.generation()

    async def look(self) -> None:
        with suppress(StoreError):  # a store that can't be written can be read
            await self._engine.without_losses()

    async def find(self, digests: Sequence[Digest]) -> list[list[Frame]]:
        return await self._engine.in_thread(self._find, digests)

    def read(self, spans: Sequence[Span]) -> list[bytes]:
        reader = self._engine.reader
        try:
            return [reader.read(Place(span.file, span.offset, span.size, 0)) for span in spans]
        except CorruptError:
            self._engine.lost_packs.suspect()
            raise

    def check(self, frame: Frame, stored: bytes) -> None:
        span = frame.span
        self._engine.payload(frame.digest, Place(span.file, span.offset, span.size, frame.length), stored)

    async def get_plan(self, key: bytes) -> bytes | None:
        digest = await self._records.get(self._key(key))
        if digest is None:
            return None
        try:
            return b"".join([piece async for piece in self._blobs.read(Digest(digest))])
        except NotFoundError:
            return None

    async def put_plan(self, key: bytes, plan: bytes) -> None:
        async def pieces() -> AsyncIterator[bytes]:
            yield plan

        digest = await self._blobs.put(pieces())
        await self._records.put({self._key(key): digest.raw}, durable=False)

    def _key(self, key: bytes) -> bytes:
        generation = self.generation
        return b"plan:%d:%b" % (generation, key) if generation else b"plan:" + key

    def _find(self, digests: Sequence[Digest]) -> list[list[Frame]]:
        places = self._engine.index.chunks_at(digests)
        return [
            self._chunks(digest) if place is None else [_frame(digest.raw, place)]
            for digest, place in zip(digests, places, strict=True)
        ]

    def _chunks(self, digest: Digest) -> list[Frame]:
        index = self._engine.index
        found = index.chunk_list_segment(digest.raw, 0)
        if found is None:
            raise NotFoundError("blob", digest)
        chunks = [chunk.digest for chunk in self._blobs.chunk_list(digest, found[0])]
        frames: list[Frame] = []
        for chunk, place in zip(chunks, index.chunks_at(chunks), strict=True):
            if place is None:
                raise CorruptError(f"blob {digest} is damaged: its chunk {chunk} is missing")
            frames.append(_frame(chunk.raw, place))
        return frames


def _frame(digest: bytes, place: Place) -> Frame:
    return Frame(digest, place.length, Span(place.pack, place.offset, place.stored))
