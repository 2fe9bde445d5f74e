"""Chunks: chunks of a far store, by way of a near one."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress

from tvix_store.concurrency.each_at_once import each_at_once
from tvix_store.concurrency.shared_calls import SharedCalls
from tvix_store.errors import CorruptError, NotFoundError
from tvix_store.layers.cache.entries import CHUNK, KeptChunk, of_contents, read_chunk, write_chunk
from tvix_store.layers.cache.fills import INLINE, Fills
from tvix_store.services.blobs import SMALL_BLOB, BlobService, Chunk, get_all
from tvix_store.services.frames import Frame
from tvix_store.services.granular import Parts, wrong_size


class Chunks:
    """Reads chunks from `near`, else from far: some at a time by `parts` where far has them, else as blobs.

    A chunk that several callers want at the same time is read from far once.
    """

    def __init__(self, near: Fills, blobs: BlobService, parts: Parts | None) -> None:
        self._near = near
        self._blobs = blobs
        self._parts = parts
        self._share = SharedCalls(self._got)

    async def get(self, chunks: Sequence[Chunk]) -> list[KeptChunk]:
        """Chunks of at most MAX_CHUNK bytes, checked, in order. The caller bounds their bytes to MAX_STORED, or one chunk.

        Raises:
            NotFoundError, CorruptError, UnavailableError: as `BlobService.read` of far.
            InvalidError: one has another length than is stated.
        """
        return await self._share(chunks)

    async def _got(self, chunks: Sequence[Chunk]) -> list[KeptChunk]:
        found = await self._near.get(CHUNK, [chunk.digest.raw for chunk in chunks], read_chunk)
        lacking = [chunk for chunk, kept in zip(chunks, found, strict=True) if kept is None]
        fetched = iter(await self._fetched(lacking)) if lacking else iter(())
        return [next(fetched) if kept is None else kept for kept in found]

    async def _fetched(self, chunks: Sequence[Chunk]) -> list[KeptChunk]:
        found: dict[Chunk, KeptChunk] = {}
        if self._parts is not None:
            with suppress(CorruptError, NotFoundError):  # of one: then each is read as a blob
                found = await self._by_parts(self._parts, chunks)
        lacking = [chunk for chunk in chunks if chunk not in found]
        contents = dict(zip(lacking, await self._as_blobs(lacking), strict=True)) if lacking else {}
        self._near.put(of_contents((chunk.digest, content) for chunk, content in contents.items()))
        return [found[each] if each in found else KeptChunk(False, contents[each], contents[each]) for each in chunks]

    async def _by_parts(self, parts: Parts, chunks: Sequence[Chunk]) -> dict[Chunk, KeptChunk]:
        """The chunks that are as their digests say. Others are damaged: far finds that when it reads them itself."""
        stored = await parts.get_chunks([Frame(chunk.digest.raw, chunk.size, chunk.size) for chunk in chunks])
        values = {chunk: write_chunk(each.length, each.stored, is_exact=True) for chunk, each in zip(chunks, stored, strict=True)}

        def checked() -> dict[Chunk, KeptChunk]:
            found = ((chunk, read_chunk(chunk.digest.raw, value)) for chunk, value in values.items())
            return {chunk: kept for chunk, kept in found if kept is not None and len(kept.content) == chunk.size}

        is_short = sum(map(len, values.values())) <= INLINE
        kept = checked() if is_short else await asyncio.to_thread(checked)
        self._near.put({CHUNK + chunk.digest.raw: values[chunk] for chunk in kept})
        return kept

    async def _as_blobs(self, chunks: Sequence[Chunk]) -> list[bytes]:
        small = [chunk.digest for chunk in chunks if chunk.size <= SMALL_BLOB]
        contents = dict(zip(small, await get_all(self._blobs, small), strict=True)) if small else {}

        async def content(chunk: Chunk) -> bytes:
            found = contents[chunk.digest] if chunk.size <= SMALL_BLOB else await self._large(chunk)
            if len(found) != chunk.size:
                raise wrong_size("chunk", chunk.digest, chunk.size)
            return found

        return await each_at_once(content, chunks)

    async def _large(self, chunk: Chunk) -> bytes:
        content = bytearray()
        async for piece in self._blobs.read(chunk.digest, 0, chunk.size + 1):
            content += piece
        return bytes(content)
