"""CachedBlobs: the blobs of a far store, by way of a near one."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterator, Sequence
from contextlib import aclosing, suppress
from itertools import islice
from struct import iter_unpack
from typing import NamedTuple

from blake3 import blake3

from tvix_store.concurrency.background_hash import BackgroundHash
from tvix_store.concurrency.closing import closing
from tvix_store.concurrency.shared_calls import SharedCalls
from tvix_store.errors import CorruptError, ExhaustedError, InvalidError, NotFoundError, StoreError, UnavailableError
from tvix_store.layers.cache.chunks import Chunks
from tvix_store.layers.cache.entries import CHUNK, LIST, KeptList, of_contents, read_chunk, read_list, write_list
from tvix_store.layers.cache.fills import Fills
from tvix_store.model.chunk_table import ChunkTable
from tvix_store.model.digest import Digest
from tvix_store.services.batches import filling
from tvix_store.services.blobs import SMALL_BLOB, BlobService, BlobStat, Chunk
from tvix_store.services.granular import MAX_CHUNK, MAX_STORED
from tvix_store.services.listed import listed_chunks
from tvix_store.services.read_ahead import READ_AHEAD, ReadAhead

_PIECE = 1 << 20
_AHEAD = 8
"""Groups of chunks, of up to MAX_STORED bytes, that are read at a time."""
_HELD = 4 << 20
"""Bytes of a blob that is being put, from its begin, that are kept when far has it all."""
_NO_LIST = b""
"""Takes the place of a list that is no longer right."""
_held = ReadAhead(4 * _HELD)


class _Part(NamedTuple):
    """A chunk, and which bytes of it are meant."""

    chunk: Chunk
    start: int
    stop: int


class CachedBlobs:
    """A BlobService over `far`. Whether blobs are there, far alone tells, so that nothing is taken for stored that far lacks."""

    def __init__(self, near: Fills, far: BlobService, chunks: Chunks) -> None:
        self._near = near
        self._far = far
        self._chunks = chunks
        self._share_small = SharedCalls(self._small)

    async def stat(self, digest: Digest, *, chunks: bool = False) -> BlobStat | None:
        """As `BlobService.stat`. While far does not answer, it tells of what is near."""
        try:
            return await self._far.stat(digest, chunks=chunks)
        except UnavailableError:
            content, kept = await self._known(digest)
            if content is not None:
                return BlobStat(len(content))
            if kept is None:
                raise
            return BlobStat(kept.table.size, listed_chunks(kept.table) if chunks else ())

    async def missing(self, digests: Sequence[Digest]) -> set[Digest]:
        return await self._far.missing(digests)

    async def read(self, digest: Digest, start: int = 0, stop: int | None = None) -> AsyncIterator[bytes]:
        content, kept = await self._known(digest)
        if content is not None:
            end = len(content) if stop is None else min(stop, len(content))
            for at in range(start, end, _PIECE):
                yield content[at : min(at + _PIECE, end)]
            return
        kept = kept or await self._list_of_far(digest)
        pieces = self._far.read(digest, start, stop) if kept is None else self._by_chunks(digest, kept.table, start, stop)
        if kept is not None and not kept.is_checked and start == 0 and stop is None:
            pieces = self._checked(digest, kept.table, pieces)
        async with closing(pieces):
            async for piece in pieces:
                yield piece

    async def _by_chunks(self, digest: Digest, table: ChunkTable, start: int, stop: int | None) -> AsyncIterator[bytes]:
        at = start
        try:
            async with aclosing(self._pieces(_touched(table, start, stop))) as pieces:
                async for piece in pieces:
                    yield piece
                    at += len(piece)
            return
        except (CorruptError, InvalidError, NotFoundError):
            # Far may have cut the blob anew. If it is damaged, far finds that when it reads the blob itself.
            self._near.put({LIST + digest.raw: _NO_LIST})
        async with closing(self._far.read(digest, at, stop)) as rest:
            async for piece in rest:
                yield piece

    async def _checked(self, digest: Digest, table: ChunkTable, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """All pieces of a blob, whose chunks nobody has held against its digest yet. The last piece comes when that is done."""
        hasher = blake3()
        hashing = BackgroundHash(hasher)
        held = b""
        async with closing(pieces):
            async for piece in pieces:
                if held:
                    yield held
                await hashing.update(piece)
                held = piece
        await hashing.finish()
        is_right = hasher.digest() == digest.raw
        self._near.put({LIST + digest.raw: write_list(digest.raw, table, is_checked=True) if is_right else _NO_LIST})
        if not is_right:
            raise CorruptError(f"blob {digest} is damaged, or the far store told other chunks than its own")
        if held:
            yield held

    async def put(self, data: AsyncIterable[bytes]) -> Digest:
        with _held.room(_HELD) as has_room:
            head = bytearray()
            size = 0

            async def passed() -> AsyncIterator[bytes]:
                nonlocal size
                async for piece in data:
                    size += len(piece)
                    if has_room and len(head) < _HELD:
                        head.extend(piece[: _HELD - len(head)])
                    yield piece

            digest = await self._far.put(passed())
            if has_room:
                await self._keep_head(digest, bytes(head), size)
            return digest

    async def put_many(self, blobs: Sequence[bytes]) -> list[Digest]:
        digests = await self._far.put_many(blobs)
        self._near.put(of_contents(zip(digests, blobs, strict=True)))
        return digests

    async def get_many(self, digests: Sequence[Digest]) -> list[bytes | None]:
        return await self._share_small(digests)

    async def _small(self, digests: Sequence[Digest]) -> list[bytes | None]:
        """As `get_many`, of distinct blobs."""
        kept = await self._near.get(CHUNK, [digest.raw for digest in digests], read_chunk)
        found: dict[Digest, bytes | None] = {}
        for digest, chunk in zip(digests, kept, strict=True):
            if chunk is not None:
                if len(chunk.content) > SMALL_BLOB:
                    raise ExhaustedError(
                        f"blob {digest} has {len(chunk.content)} bytes, too many for get_many; read it as a stream"
                    )
                found[digest] = chunk.content
        lacking = [digest for digest in digests if digest not in found]
        if lacking:
            fetched = list(zip(lacking, await self._far.get_many(lacking), strict=True))
            self._near.put(of_contents((digest, content) for digest, content in fetched if content is not None))
            found |= fetched
        return [found[digest] for digest in digests]

    async def _known(self, digest: Digest) -> tuple[bytes | None, KeptList | None]:
        """The blob, if it is one chunk that is near; else its chunks, if these are known."""
        (kept,) = await self._near.get(CHUNK, [digest.raw], read_chunk)
        if kept is not None:
            return kept.content, None
        (listed,) = await self._near.get(LIST, [digest.raw], read_list)
        return None, listed

    async def _list_of_far(self, digest: Digest) -> KeptList | None:
        """The chunks of a blob; None where far does not tell them, or they are too large.

        Raises:
            NotFoundError: far lacks the blob.
        """
        stat = await self._far.stat(digest, chunks=True)
        if stat is None:
            raise NotFoundError("blob", digest)
        if stat.chunks:
            kept = KeptList(_table(stat.chunks), is_checked=False)
            self._near.put({LIST + digest.raw: write_list(digest.raw, kept.table)})
        elif stat.size is not None:
            kept = KeptList(_table([Chunk(digest, stat.size)]), is_checked=True)
        else:
            return None
        return kept if max(_lengths(kept.table)) <= MAX_CHUNK else None

    async def _pieces(self, parts: Iterator[_Part]) -> AsyncGenerator[bytes, None]:
        """What is meant of the chunks. Some groups of them are read ahead."""
        with READ_AHEAD.room(_AHEAD * MAX_STORED) as has_room:
            groups = _grouped(parts)
            reading: deque[asyncio.Task[list[bytes]]] = deque()
            try:
                while True:
                    for group in islice(groups, (_AHEAD if has_room else 1) - len(reading)):
                        reading.append(asyncio.create_task(self._contents(group)))
                    if not reading:
                        return
                    contents = await reading[0]
                    reading.popleft()
                    for content in contents:
                        for at in range(0, len(content), _PIECE):
                            yield content[at : at + _PIECE]
            finally:
                for task in reading:
                    task.cancel()
                await asyncio.gather(*reading, return_exceptions=True)

    async def _contents(self, parts: Sequence[_Part]) -> list[bytes]:
        kept = await self._chunks.get([part.chunk for part in parts])
        return [chunk.content[part.start : part.stop] for part, chunk in zip(parts, kept, strict=True)]

    async def _keep_head(self, digest: Digest, head: bytes, size: int) -> None:
        """Keep the begin of a blob that far has taken."""
        if size <= SMALL_BLOB:
            self._near.put(of_contents([(digest, head)]))
            return
        with suppress(StoreError):
            listed = await self._list_of_far(digest)
            if listed is not None:
                self._near.put(of_contents(_within(listed.table, head)))


def _table(chunks: Sequence[Chunk]) -> ChunkTable:
    return ChunkTable.of_sized((chunk.digest.raw, chunk.size) for chunk in chunks)


def _lengths(table: ChunkTable) -> Iterator[int]:
    return (length for (length,) in iter_unpack("<Q", table.lengths))


def _touched(table: ChunkTable, start: int, stop: int | None) -> Iterator[_Part]:
    """The chunks that `start` to `stop` touches."""
    at = 0
    for number, size in enumerate(_lengths(table)):
        if stop is not None and at >= stop:
            return
        if at + size > start:
            digest, _, _ = table.row(number)
            yield _Part(Chunk(Digest(digest), size), max(start - at, 0), size if stop is None else min(stop - at, size))
        at += size


def _grouped(parts: Iterator[_Part]) -> Iterator[list[_Part]]:
    return filling(parts, lambda part: part.chunk.size, size=MAX_STORED)


def _within(table: ChunkTable, head: bytes) -> Iterator[tuple[Digest, bytes]]:
    """The chunks that lie in `head`, the begin of their blob, as a whole."""
    at = 0
    for digest, size, _ in table:
        if at + size > len(head):
            return
        yield Digest(digest), head[at : at + size]
        at += size
