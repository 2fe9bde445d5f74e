"""PackedBlobs: blobs as chunks in packs."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Sequence
from contextlib import ExitStack
from itertools import islice
from typing import NamedTuple

from tvix_store.backends.objectstore.packed.blob_writer import BlobWriter, new_chunks
from tvix_store.backends.objectstore.packed.chunk_lists import ChunkListBuilder
from tvix_store.backends.objectstore.packed.contents import Content, Kind, Place, Sink
from tvix_store.backends.objectstore.packed.engine import Engine, Found
from tvix_store.backends.objectstore.packed.trees import Trees
from tvix_store.chunking import CutChunk, cut_blob
from tvix_store.errors import CorruptError, ExhaustedError, InvalidError, NotFoundError
from tvix_store.model.digest import Digest
from tvix_store.services.blobs import SMALL_BLOB, BlobStat, Chunk
from tvix_store.services.read_ahead import READ_AHEAD

_PIECE = 1 << 20
_FIRST = 512 << 10
_GROUP = 4 << 20
"""Bytes of chunks that are read together: at first few, so that the reader begins soon, then twice as many each time, to this."""
_AHEAD = (14, 3)
"""Groups that are read ahead of a reader, as memory lets us. An object store gives each request some 50 MiB a second."""
_INLINE = 32 << 10
"""Bytes of blobs that are cut on the event loop."""

Part = tuple[bytes, int, int]
"""A chunk, and the begin and end of the part of it that is meant."""


class PackedBlobs:
    """The BlobService of a packed bucket; what is put goes into `sink`, by default the committer."""

    def __init__(self, engine: Engine, trees: Trees, sink: Sink | None = None) -> None:
        self._engine = engine
        self._trees = trees
        self._sink = sink or engine.committer
        self._sizes = engine.settings.sizes

    async def stat(self, digest: Digest, *, chunks: bool = False) -> BlobStat | None:
        found = await self._find(digest)
        if found is None:
            return None
        if isinstance(found, Place):
            return BlobStat(found.length)
        if not chunks:
            return BlobStat(found)
        segments = [segment async for segment in self._engine.segments(digest)]
        return BlobStat(found, [Chunk(Digest(key), length) for segment in segments for key, length in segment.entries])

    async def missing(self, digests: Sequence[Digest]) -> set[Digest]:
        found = await self._engine.find([digest.raw for digest in digests], age=self._engine.settings.fresh, hints=False)
        return {digest for digest, each in zip(digests, found, strict=True) if each is None}

    async def read(self, digest: Digest, start: int = 0, stop: int | None = None) -> AsyncIterator[bytes]:
        found = await self._find(digest)
        if found is None:
            raise NotFoundError("blob", digest)
        if isinstance(found, Place):
            [content] = await self._engine.contents(Kind.CHUNK, [digest.raw], [found])
            for piece in _pieces(content[start:stop]):
                yield piece
            return
        with ExitStack() as room:
            depth = next((each for each in _AHEAD if room.enter_context(READ_AHEAD.room((each + 1) * _GROUP))), 0)
            groups = _grouped(self._parts(digest, start, stop), _GROUP if depth else _FIRST)
            ahead: deque[asyncio.Task[list[bytes]]] = deque()
            try:
                async for group in groups:
                    ahead.append(asyncio.create_task(self._read_parts(digest, group)))
                    if len(ahead) > depth:
                        for piece in await ahead.popleft():
                            yield piece
                while ahead:
                    for piece in await ahead.popleft():
                        yield piece
            finally:
                for task in ahead:
                    task.cancel()
                await asyncio.gather(*ahead, return_exceptions=True)

    async def put(self, data: AsyncIterable[bytes]) -> Digest:
        return await BlobWriter(self._sink, self._sizes).write(data)

    async def put_many(self, blobs: Sequence[bytes]) -> list[Digest]:
        for blob in blobs:
            if len(blob) > SMALL_BLOB:
                raise InvalidError(f"put_many takes blobs of up to {SMALL_BLOB} bytes, got one of {len(blob)}")
        is_little = sum(map(len, blobs)) <= _INLINE
        cut = self._cut_all(blobs) if is_little else await asyncio.to_thread(self._cut_all, blobs)
        unknown = await self._sink.unknown([each.name for each in cut.lists]) if cut.lists else ()
        contents = [*await new_chunks(self._sink, cut.chunks), *(each for each in cut.lists if each.name in unknown)]
        if contents:
            await self._sink.put(contents)
        return cut.digests

    async def get_many(self, digests: Sequence[Digest]) -> list[bytes | None]:
        found = await self._engine.find([digest.raw for digest in digests])
        parts: list[list[bytes]] = []
        for digest, each in zip(digests, found, strict=True):
            size = each.length if isinstance(each, Place) else each or 0
            if size > SMALL_BLOB:
                raise ExhaustedError(f"blob {digest} has {size} bytes, too many for get_many ({SMALL_BLOB}); read it as a stream")
            if isinstance(each, int):
                parts.append([key async for segment in self._engine.segments(digest) for key, _ in segment.entries])
            else:
                parts.append([] if each is None else [digest.raw])
        contents = iter(await self._chunks([key for each in parts for key in each]))
        return [None if each is None else b"".join(islice(contents, len(keys))) for each, keys in zip(found, parts, strict=True)]

    async def _find(self, digest: Digest) -> Found:
        """As `Engine.find`. A blob that is a store path of its own has an object as a tree has."""
        [found] = await self._engine.find_now([digest.raw])
        if found is None and await self._trees.load(digest.raw) is not None:
            [found] = await self._engine.find_now([digest.raw])
        if found is None:
            [found] = await self._engine.find([digest.raw])
        return found

    async def _chunks(self, keys: Sequence[bytes]) -> list[bytes]:
        distinct = list(dict.fromkeys(keys))
        places = await self._engine.locate_all(Kind.CHUNK, distinct)
        contents = dict(zip(distinct, await self._engine.contents(Kind.CHUNK, distinct, places), strict=True))
        return [contents[key] for key in keys]

    async def _read_parts(self, blob: Digest, parts: Sequence[Part]) -> list[bytes]:
        """The pieces of some parts of a cut blob."""
        try:
            contents = await self._chunks([key for key, _, _ in parts])
        except (CorruptError, NotFoundError) as error:
            await self._engine.forget_list(blob)
            if isinstance(error, CorruptError):
                raise
            raise CorruptError(f"blob {blob} is damaged: its chunk {error.key} is missing") from None
        wanted = (content[begin:end] for content, (_, begin, end) in zip(contents, parts, strict=True))
        return [piece for content in wanted for piece in _pieces(content)]

    async def _parts(self, digest: Digest, start: int, stop: int | None) -> AsyncIterator[Part]:
        """The chunks that `start` to `stop` touches."""
        at, end = start, start + 1
        while at < end:
            segment = await self._engine.segment(digest, at)
            if segment is None:
                raise NotFoundError("blob", digest)
            end = segment.size if stop is None else min(stop, segment.size)
            if at >= end:
                return
            offset = segment.start
            for key, length in segment.entries:
                if offset + length > at:
                    if offset >= end:
                        return
                    yield key, max(at - offset, 0), min(end - offset, length)
                offset += length
            if offset <= at:
                await self._engine.forget_list(digest)
                raise CorruptError(f"blob {digest} is damaged: the part of its chunk list from byte {at} on is missing")
            at = offset

    def _cut_all(self, blobs: Sequence[bytes]) -> _Cut:
        cut = _Cut([], [], [])
        for blob in blobs:
            key, chunks = cut_blob(blob, self._sizes)
            cut.digests.append(Digest(key))
            cut.chunks.extend(chunks)
            if len(chunks) > 1:
                listed = ChunkListBuilder()
                for chunk, content in chunks:
                    listed.add(chunk, len(content))
                cut.lists.extend(listed.segments(key))
        return cut


class _Cut(NamedTuple):
    """Small blobs that were cut: their digests, all their chunks, and the lists of those that have several."""

    digests: list[Digest]
    chunks: list[CutChunk]
    lists: list[Content]


async def _grouped(parts: AsyncIterator[Part], most: int) -> AsyncIterator[list[Part]]:
    """The parts, in lists of growing size."""
    group: list[Part] = []
    size, limit = 0, min(_FIRST, most)
    async for part in parts:
        _, begin, end = part
        if group and size + end - begin > limit:
            yield group
            group, size, limit = [], 0, min(2 * limit, most)
        group.append(part)
        size += end - begin
    if group:
        yield group


def _pieces(content: bytes) -> list[bytes]:
    """A content in pieces that a reader gets. What is not cut is not copied."""
    return [content[at : at + _PIECE] for at in range(0, len(content), _PIECE)]
