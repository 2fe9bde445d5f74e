"""LocalAssembling: chunk lists of blobs whose chunks are there already."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from blake3 import blake3

from tvix_store.backends.local.blob_writer import put_chunk_list
from tvix_store.backends.local.blobs import LocalBlobs
from tvix_store.backends.local.chunk_lists import ChunkListWriter
from tvix_store.backends.local.engine import Engine
from tvix_store.errors import NotFoundError
from tvix_store.model.digest import Digest
from tvix_store.services.assembling import not_the_blob, wrong_chunk_size
from tvix_store.services.blobs import Chunk

_AT_A_TIME = 64
"""Chunks that are read in one hop to a thread: some 4 MiB, and at most 256."""
_AT_ONCE = 2
"""Hops at once, so that readers have threads left."""


class LocalAssembling:
    """The Assembling of a local store. A chunk that was itself cut when it was put is replaced by its own chunks."""

    def __init__(self, engine: Engine, blobs: LocalBlobs) -> None:
        self._engine = engine
        self._blobs = blobs
        self._room = asyncio.Semaphore(_AT_ONCE)

    async def assemble(self, digest: Digest, chunks: Sequence[Chunk]) -> None:
        hasher = blake3()
        writer = ChunkListWriter(self._engine.directory)
        try:
            for at in range(0, len(chunks), _AT_A_TIME):
                # In turns: a list of a few MiB may name 400 GiB, one and the same chunk over and over.
                async with self._room:
                    await self._engine.in_thread(self._take, chunks[at : at + _AT_A_TIME], hasher, writer)
            if hasher.digest() != digest.raw:
                raise not_the_blob(digest)
            if writer.chunks > 1:
                await put_chunk_list(self._engine, self._engine.committer, writer, digest)
            elif writer.chunks and (await self._blobs.stat(digest)) is None:  # its own only chunk was just collected
                raise NotFoundError("blob", digest)
        finally:
            writer.close()

    def _take(self, chunks: Sequence[Chunk], hasher: blake3, writer: ChunkListWriter) -> None:
        """Read and check the next chunks, and list them."""
        for chunk in chunks:
            size = 0
            for key in self._blobs.chunk_keys(chunk.digest):
                place = self._engine.index.chunk(key)
                if place is None:
                    raise NotFoundError("blob", Digest(key))
                content = self._engine.payload(key, place)
                size += len(content)
                if size > chunk.size:
                    break
                hasher.update(content)
                writer.add(key, len(content))
            if size != chunk.size:
                raise wrong_chunk_size(chunk)
