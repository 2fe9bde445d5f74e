"""LocalBlobs: blobs as chunks in packs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Iterator, Sequence
from concurrent.futures import Future
from itertools import chain
from typing import Any

from tvix_store.backends.local.blob_writer import PIECE, BlobWriter, compressed, done
from tvix_store.backends.local.chunk_lists import ChunkListWriter, Segment
from tvix_store.backends.local.contents import Content, Sink
from tvix_store.backends.local.engine import Engine
from tvix_store.backends.local.packs import Place
from tvix_store.backends.local.records import Kind
from tvix_store.chunking import ChunkSizes, cut_blob
from tvix_store.errors import CorruptError, ExhaustedError, InvalidError, NotFoundError
from tvix_store.model.digest import Digest
from tvix_store.services.blobs import SMALL_BLOB, BlobStat, Chunk
from tvix_store.services.read_ahead import READ_AHEAD

_READ_AHEAD = 2 << 20
"""Bytes that `read` reads ahead. Each time is a hop to a thread: 1 GiB takes 0.78 s with half a MiB, 0.62 with 1, 0.52 with 2."""
_INLINE = 64 << 10
"""Bytes up to which a chunk in memory is decompressed and checked on the event loop: it takes as long as a hop to a thread."""


class LocalBlobs:
    """The BlobService of a local store; what is put goes into `sink`, by default the committer."""

    def __init__(self, engine: Engine, sink: Sink | None = None) -> None:
        self._engine = engine
        self._sink = sink or engine.committer
        self._sizes = ChunkSizes.of_average(engine.settings.chunk_average)

    async def stat(self, digest: Digest, *, chunks: bool = False) -> BlobStat | None:
        index = self._engine.index
        finds = index.finds
        found = await self._stat(digest, chunks=chunks)
        if index.finds == finds:
            return found
        await self._engine.take_back()
        return await self._stat(digest, chunks=chunks) if index.is_live_blob(digest.raw) else None

    async def _stat(self, digest: Digest, *, chunks: bool) -> BlobStat | None:
        index = self._engine.index
        place = index.chunk(digest.raw)
        if place is not None:
            return BlobStat(place.length)
        found = index.chunk_list_segment(digest.raw, 0)
        if found is None:
            return None
        if not chunks:
            return BlobStat(found[0])
        return BlobStat(found[0], await self._engine.in_thread(self.chunk_list, digest, found[0]))

    async def missing(self, digests: Sequence[Digest]) -> set[Digest]:
        await self._engine.without_losses()
        index = self._engine.index
        finds = index.finds
        missing = await self._engine.in_thread(self._missing, digests)
        if index.finds == finds:
            return missing
        await self._engine.take_back()
        return await self._engine.in_thread(self._not_live, digests)

    async def read(self, digest: Digest, start: int = 0, stop: int | None = None) -> AsyncIterator[bytes]:
        place = self._engine.index.chunk(digest.raw)
        if place is not None:
            data = await self._chunk(digest.raw, place)
            data = data if start == 0 and stop is None else data[start:stop]
            await self._engine.taken_back()
            for at in range(0, len(data), PIECE):
                yield data[at : at + PIECE] if len(data) > PIECE else data
            return
        # Some chunks are read ahead while the ones before are with the consumer. They are given out as they are: joining them
        # to larger pieces cost a third of the CPU of reading, and made the gRPC server slower, not faster.
        with READ_AHEAD.room(2 * _READ_AHEAD) as has_room:
            groups = self._groups(digest, start, stop, _READ_AHEAD if has_room else 0)
            ahead = self._ahead(groups)
            try:
                while (group := await ahead) is not None:
                    await self._engine.taken_back()  # before a slow client takes its time
                    if has_room:
                        ahead = self._ahead(groups)
                    for piece in group:
                        yield piece
                    if not has_room:
                        ahead = self._ahead(groups)
            finally:
                ahead.cancel()

    async def put(self, data: AsyncIterable[bytes]) -> Digest:
        writer = BlobWriter(self._engine, self._sink, self._sizes)
        held: list[bytes | memoryview] = []
        size = 0
        try:
            async for large in data:
                for at in range(0, len(large), PIECE):
                    piece = memoryview(large)[at : at + PIECE] if len(large) > PIECE else large
                    held.append(piece)
                    size += len(piece)
                    if size >= PIECE:
                        await writer.feed(held)
                        held, size = [], 0
            if not writer.fed and size <= self._sizes.minimum:
                return await self._put_chunk(b"".join(held))
            return await writer.finish(held)
        finally:
            await writer.close()

    async def put_many(self, blobs: Sequence[bytes]) -> list[Digest]:
        for blob in blobs:
            if len(blob) > SMALL_BLOB:
                raise InvalidError(f"put_many takes blobs of up to {SMALL_BLOB} bytes, got one of {len(blob)}")
        if len(blobs) == 1 and len(blobs[0]) <= self._sizes.minimum:
            return [await self._put_chunk(blobs[0])]
        if self._sink.holds(sum(map(len, blobs))):
            contents, digests = self._cut_all(blobs)
            await done(self._sink.put_contents(contents))
            return digests
        storing, digests = await self._engine.in_thread(self._begin_to_store, blobs)
        if storing is not None:
            await done(storing)
        return digests

    async def get_many(self, digests: Sequence[Digest]) -> list[bytes | None]:
        return await self._engine.in_thread(self._get_all, digests)

    async def _put_chunk(self, blob: bytes) -> Digest:
        """Put a blob that is too small to be cut."""
        digest = Digest.of(blob)
        unknown = self._sink.unknown([Content(Kind.CHUNK, digest.raw, blob)])
        if unknown:
            await done(self._sink.put_contents(unknown))
        return digest

    def _begin_to_store(self, blobs: Sequence[bytes]) -> tuple[Future[Any] | None, list[Digest]]:
        """Cut blobs, compress what is new of them, and hand it over; None where nothing is. Their digests.

        Several batches are prepared at a time, each by one thread: the committer, which there is one of, has the less to do.
        """
        contents, digests = self._cut_all(blobs)
        unknown = compressed(self._engine, self._sink, contents)
        return self._sink.put_contents(unknown) if unknown else None, digests

    def _cut_all(self, blobs: Sequence[bytes]) -> tuple[list[Content], list[Digest]]:
        """What is to be stored of small blobs, not compressed, and their digests."""
        contents: list[Content] = []
        digests: list[Digest] = []
        for blob in blobs:
            key, chunks = cut_blob(blob, self._sizes)
            digests.append(Digest(key))
            for chunk, content in chunks:
                contents.append(Content(Kind.CHUNK, chunk, content))
            if len(chunks) > 1:
                chunk_list = ChunkListWriter(self._engine.directory)
                for chunk, content in chunks:
                    chunk_list.add(chunk, len(content))
                contents.extend(chunk_list.segments(key))
                chunk_list.close()
        return contents, digests

    def _missing(self, digests: Sequence[Digest]) -> set[Digest]:
        index = self._engine.index
        return {digest for digest in digests if index.chunk(digest.raw) is None and index.chunk_list_segment(digest.raw, 0) is None}

    def _not_live(self, digests: Sequence[Digest]) -> set[Digest]:
        return {digest for digest in digests if not self._engine.index.is_live_blob(digest.raw)}

    def _get_all(self, digests: Sequence[Digest]) -> list[bytes | None]:
        places = self._engine.index.chunks_at([digest.raw for digest in digests])
        chunks = {digest.raw: place for digest, place in zip(digests, places, strict=True) if place and place.length <= SMALL_BLOB}
        payloads = self._engine.payloads(list(chunks.items()))
        return [payloads[digest.raw] if digest.raw in payloads else self._get_cut(digest) for digest in digests]

    def _get_cut(self, digest: Digest) -> bytes | None:
        """A small blob of several chunks; None where there is none."""
        index = self._engine.index
        place = index.chunk(digest.raw)
        segment = index.chunk_list_segment(digest.raw, 0)
        if place is None and segment is None:
            return None
        size = place.length if place else segment[0] if segment else 0
        if size > SMALL_BLOB:
            raise ExhaustedError(f"blob {digest} has {size} bytes, too many for get_many ({SMALL_BLOB}); read it as a stream")
        return b"".join(chain.from_iterable(self._groups(digest, 0, None)))

    async def _chunk(self, digest: bytes, place: Place) -> bytes:
        if place.length <= _INLINE:
            stored = self._engine.reader.read_if_cached(place)
            if stored is not None:
                return self._engine.payload(digest, place, stored)
        return await self._engine.in_thread(self._engine.payload, digest, place)

    def _ahead(self, groups: Iterator[list[bytes]]) -> asyncio.Future[list[bytes] | None]:
        return asyncio.wrap_future(self._engine.start_in_thread(next, groups, None))

    def _groups(self, digest: Digest, start: int, stop: int | None, most: int = _READ_AHEAD) -> Iterator[list[bytes]]:
        """The bytes of a cut blob, in lists of one piece or of up to `most` bytes. Blocks: runs in a thread."""
        engine = self._engine
        group: list[bytes] = []
        size = 0
        for key, begin, end in self._ranges(digest, start, stop):
            place = engine.index.chunk(key)
            if place is None:
                engine.forget_torn(digest.raw)
                raise CorruptError(f"blob {digest} is damaged: its chunk b3:{key.hex()} is missing")
            if group and size + end - begin > most:
                yield group
                group, size = [], 0
            data = engine.payload(key, place)
            group.append(data if (begin, end) == (0, len(data)) else data[begin:end])
            size += end - begin
        if group:
            yield group

    def _ranges(self, digest: Digest, start: int, stop: int | None) -> Iterator[tuple[bytes, int, int]]:
        """The chunks that `start` to `stop` touches, each with the part of it that is meant."""
        at, end = start, start + 1
        while at < end:
            segment = self._engine.segment(digest.raw, at)
            if segment is None:
                raise NotFoundError("blob", digest)
            end = segment.blob_size if stop is None else min(stop, segment.blob_size)
            if at >= end:
                return
            offset = segment.offset
            for key, size in segment.entries:
                if offset + size > at:
                    if offset >= end:
                        return
                    yield key, max(at - offset, 0), min(end - offset, size)
                offset += size
            if offset <= at:
                raise _lacks_segment(digest, at)
            at = offset

    def chunk_keys(self, digest: Digest) -> Iterator[bytes]:
        """The keys of the chunks of a blob, its own where it is not cut. Blocks: runs in a thread.

        Raises:
            NotFoundError: the blob is not there.
        """
        if self._engine.index.chunk(digest.raw) is not None:
            yield digest.raw
            return
        for key, _, _ in self._ranges(digest, 0, None):
            yield key

    def chunk_list(self, digest: Digest, blob_size: int) -> list[Chunk]:
        """The chunks of a cut blob. Blocks: runs in a thread."""
        segments = self.segments(digest, blob_size)
        return [Chunk(Digest(key), size) for segment in segments for key, size in segment.entries]

    def segments(self, digest: Digest, blob_size: int) -> Iterator[Segment]:
        """The parts of the chunk list of a cut blob. Blocks: runs in a thread.

        Raises:
            CorruptError: one is missing.
        """
        at = 0
        while at < blob_size:
            segment = self._engine.segment(digest.raw, at)
            if segment is None:  # forgotten just now, since it was found damaged
                raise _lacks_segment(digest, at)
            if segment.end <= at:
                raise _lacks_segment(digest, at)
            at = segment.end
            yield segment


def _lacks_segment(digest: Digest, at: int) -> CorruptError:
    return CorruptError(f"blob {digest} is damaged: the part of its chunk list from byte {at} on is missing")
