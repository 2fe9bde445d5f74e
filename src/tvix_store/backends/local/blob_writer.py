"""BlobWriter: a put of a blob that comes in pieces, and what it shares with other puts."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from itertools import islice
from typing import Any, TypeVar

from tvix_store.backends.local.chunk_lists import SEGMENT_CHUNKS, ChunkListWriter
from tvix_store.backends.local.contents import Content, Sink, compress
from tvix_store.backends.local.engine import Engine
from tvix_store.backends.local.records import Kind
from tvix_store.chunking import BlobAssembler, ChunkSizes, CutChunk
from tvix_store.compression.samples import looks_compressible
from tvix_store.model.digest import Digest

T = TypeVar("T")

PIECE = 1 << 20
"""Bytes that `put` works on at a time."""
_SEGMENTS = 32
"""Segments of a chunk list that are put at a time: those of 16 GiB, 4.6 MB."""
_PIECES_IN_FLIGHT = 1
"""Pieces of a put whose chunks may be compressed, or wait to be written, while the next is cut."""


class BlobWriter:
    """A put in progress: assembles the blob and hands over its chunks, in a thread, while the next pieces come."""

    def __init__(self, engine: Engine, sink: Sink, sizes: ChunkSizes) -> None:
        self._engine = engine
        self._sink = sink
        self._blob = BlobAssembler(sizes)
        self._chunk_list = ChunkListWriter(engine.directory)
        self._working: Future[None] | None = None
        self._writes: deque[Future[Future[Any]]] = deque()
        """Chunks that are being compressed, and then written."""
        self.fed = False

    async def feed(self, pieces: list[bytes | memoryview]) -> None:
        """Take the next pieces, when the ones before are worked through, and few chunks wait to be written."""
        self.fed = True
        await self._worked_through()
        while len(self._writes) > _PIECES_IN_FLIGHT:
            await done(await asyncio.wrap_future(self._writes.popleft()))
        self._working = self._engine.start_in_thread(self._cut, pieces)

    async def finish(self, pieces: list[bytes | memoryview]) -> Digest:
        """Take the last pieces; the digest of the blob, which is visible now."""
        await self.feed(pieces)
        await self._worked_through()
        await self._engine.in_thread(self._cut_rest)
        while self._writes:
            await done(await asyncio.wrap_future(self._writes.popleft()))
        digest = Digest(self._blob.digest)
        await put_chunk_list(self._engine, self._sink, self._chunk_list, digest)
        return digest

    async def close(self) -> None:
        """After success or failure: when this returns, nothing of the blob is written any more."""
        if self._working is not None:
            await _stopped(self._working)
        self._chunk_list.close()
        for packing in self._writes:
            write = await _stopped(packing)
            if write is not None:
                await _stopped(write)

    async def _worked_through(self) -> None:
        if self._working is not None:
            await asyncio.wrap_future(self._working)
            self._working = None

    def _cut(self, pieces: list[bytes | memoryview]) -> None:
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        self._hand_over(self._blob.feed(data), raw=len(data) >= PIECE and not looks_compressible(data))

    def _cut_rest(self) -> None:
        self._hand_over(self._blob.finish(), raw=False)

    def _hand_over(self, chunks: Sequence[CutChunk], *, raw: bool) -> None:
        for digest, content in chunks:
            self._chunk_list.add(digest, len(content))
        if chunks:
            contents = [Content(Kind.CHUNK, digest, content, packed=content if raw else None) for digest, content in chunks]
            self._writes.append(self._engine.start_in_thread(self._write, contents))

    def _write(self, contents: list[Content]) -> Future[Any]:
        """Compress what is not known yet, beside the cutting of the next piece, and let it be written."""
        return self._sink.write_contents(compressed(self._engine, self._sink, contents))


async def put_chunk_list(engine: Engine, sink: Sink, chunk_list: ChunkListWriter, digest: Digest) -> None:
    """Put the chunk list of a blob, and let all that was written before be visible. A blob of one chunk needs no list.

    A list of many segments is put some at a time, to bound memory: the first of its segments comes last, and makes it visible.
    """
    segments = chunk_list.segments(digest.raw) if chunk_list.chunks > 1 else iter(())
    if chunk_list.chunks <= SEGMENT_CHUNKS:  # not worth a hop to a thread
        await done(sink.put_contents(list(segments)))
        return

    def taken() -> list[Content]:
        return list(islice(segments, _SEGMENTS))

    some = await engine.in_thread(taken)
    while following := await engine.in_thread(taken):
        await done(sink.write_contents(some))
        some = following
    await done(sink.put_contents(some))


def compressed(engine: Engine, sink: Sink, contents: Sequence[Content]) -> list[Content]:
    """Those of the contents that are not stored yet, with their chunks compressed."""
    unknown = sink.unknown(contents)
    compress(unknown, engine.settings.compression_level)
    return unknown


async def done(future: Future[Any]) -> None:
    await asyncio.wrap_future(future)


async def _stopped(future: Future[T]) -> T | None:
    """Wait until the work behind `future` does not go on, if it cannot be cancelled. Its error was not wanted."""
    if not future.cancel():
        with suppress(Exception):
            return await asyncio.wrap_future(future)
    return None
