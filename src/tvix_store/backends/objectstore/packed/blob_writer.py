"""BlobWriter: a put of a blob that comes in pieces: cut, compressed and handed over while the next pieces come."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Sequence
from functools import partial

from tvix_store.backends.objectstore.packed.chunk_lists import ChunkListBuilder
from tvix_store.backends.objectstore.packed.contents import Content, Kind, Sink
from tvix_store.chunking import BlobAssembler, ChunkSizes, CutChunk
from tvix_store.compression.chunk_frames import compressed_chunks
from tvix_store.model.digest import Digest

PIECE = 2 << 20
"""Bytes that are worked on at a time."""
_IN_FLIGHT = 2
"""Pieces whose chunks are being compressed, or put, while the next is cut."""
_PUT_AT_ONCE = 8 << 20
"""Stored bytes that are put at a time."""
_INLINE = 32 << 10
"""Bytes that are compressed on the event loop."""


class BlobWriter:
    """One put. Its chunks are put as they come; the list, which makes the blob visible, at the end."""

    def __init__(self, sink: Sink, sizes: ChunkSizes) -> None:
        self._sink = sink
        self._blob = BlobAssembler(sizes)
        self._list = ChunkListBuilder()
        self._compressing: deque[asyncio.Task[list[Content]]] = deque()
        self._putting: deque[asyncio.Task[None]] = deque()
        self._compressed: list[Content] = []

    async def write(self, data: AsyncIterable[bytes]) -> Digest:
        try:
            async for pieces in _gathered(data):
                await self._take(await asyncio.to_thread(self._cut, pieces))
            await self._take(await asyncio.to_thread(self._blob.finish))
            await self._drain(0)
            digest = self._blob.digest
            # What is not put yet goes with the list: a blob of some MiB is one put.
            await self._sink_put([*self._compressed, *self._list.segments(digest)])
            return Digest(digest)
        finally:
            tasks = [*self._compressing, *self._putting]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _cut(self, pieces: list[bytes]) -> list[CutChunk]:
        return self._blob.feed(pieces[0] if len(pieces) == 1 else b"".join(pieces))

    async def _take(self, chunks: Sequence[CutChunk]) -> None:
        for digest, content in chunks:
            self._list.add(digest, len(content))
        if chunks:
            self._compressing.append(asyncio.create_task(new_chunks(self._sink, chunks)))
            await self._drain(_IN_FLIGHT)

    async def _drain(self, most: int) -> None:
        """Let at most so many pieces be under way."""
        while len(self._compressing) > most:
            self._compressed += await self._compressing.popleft()
            if sum(len(each.stored) for each in self._compressed) >= _PUT_AT_ONCE:
                self._putting.append(asyncio.create_task(self._sink_put(self._compressed)))
                self._compressed = []
        while len(self._putting) > most:
            await self._putting.popleft()

    async def _sink_put(self, contents: list[Content]) -> None:
        if contents:
            await self._sink.put(contents)


async def new_chunks(sink: Sink, chunks: Sequence[CutChunk]) -> list[Content]:
    """Those of the chunks that the sink lacks, compressed."""
    unknown = await sink.unknown([(Kind.CHUNK, digest, 0) for digest, _ in chunks])
    new = {digest: content for digest, content in chunks if (Kind.CHUNK, digest, 0) in unknown}
    pack = partial(compressed_chunks, [(digest, len(content), content) for digest, content in new.items()])
    packed = pack() if sum(map(len, new.values())) <= _INLINE else await asyncio.to_thread(pack)
    return [Content(Kind.CHUNK, digest, stored, length) for digest, length, stored in packed]


async def _gathered(data: AsyncIterable[bytes]) -> AsyncIterator[list[bytes]]:
    """The pieces, in lists of about PIECE bytes."""
    held: list[bytes] = []
    size = 0
    async for large in data:
        for at in range(0, len(large), PIECE):
            piece = large if len(large) <= PIECE else large[at : at + PIECE]
            held.append(piece)
            size += len(piece)
            if size >= PIECE:
                yield held
                held, size = [], 0
    if held:
        yield held
