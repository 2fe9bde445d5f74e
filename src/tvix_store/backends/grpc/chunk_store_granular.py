"""ChunkStoreGranular: chunks of a server that has snix's ChunkStoreService and BlobStoreService."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from tvix_store.backends.grpc.chunked_blobs import ChunkedBlobs
from tvix_store.compression.chunk_frames import checked_contents
from tvix_store.concurrency.each_at_once import each_at_once, missing_at_once
from tvix_store.model.digest import Digest
from tvix_store.model.directory import Directory
from tvix_store.services.blobs import Chunk
from tvix_store.services.frames import Frame
from tvix_store.services.granular import MAX_CHUNK, Granular, StoredChunk, wrong_size


class ChunkStoreGranular:
    """A Granular by calls for each chunk. A chunk is no blob there, so it is asked for, got and put by calls of its own.

    `inner` does the rest.
    """

    def __init__(self, chunks: ChunkedBlobs, inner: Granular) -> None:
        self._chunks = chunks
        self._inner = inner

    async def missing_directories(self, digests: Sequence[Digest]) -> set[Digest]:
        return await self._inner.missing_directories(digests)

    async def get_directories(self, digests: Sequence[Digest]) -> list[Directory]:
        return await self._inner.get_directories(digests)

    async def put_directories(self, directories: Sequence[Directory]) -> None:
        await self._inner.put_directories(directories)

    async def list_chunks(self, blobs: Sequence[Chunk]) -> list[Sequence[Frame]]:
        return await self._inner.list_chunks(blobs)

    async def get_chunks(self, chunks: Sequence[Frame]) -> list[StoredChunk]:
        async def get(chunk: Frame) -> StoredChunk:
            digest = Digest(chunk.digest)
            content = await self._chunks.whole_chunk(Chunk(digest, chunk.length))
            if content is None:
                raise wrong_size("chunk", digest, chunk.length)
            return StoredChunk(chunk.digest, chunk.length, content)

        return await each_at_once(get, chunks)

    async def missing_chunks(self, digests: Sequence[Digest]) -> set[Digest]:
        return await missing_at_once(self._chunks.has_chunk, digests)

    async def put_chunks(self, chunks: Sequence[StoredChunk]) -> None:
        contents = await asyncio.to_thread(checked_contents, chunks, MAX_CHUNK)
        each = {chunk.digest: content for chunk, content in zip(chunks, contents, strict=True)}

        async def put(digest: bytes) -> None:
            await self._chunks.put_chunk(Digest(digest), bytes(each[digest]))

        await each_at_once(put, list(each))

    async def assemble(self, digest: Digest, chunks: Sequence[Chunk]) -> None:
        """As `Granular.assemble`. Most servers take a list of up to 110,000 chunks."""
        await self._chunks.put_blob(digest, chunks)
