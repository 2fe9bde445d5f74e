"""PackedGranular and PackedAssembling: directories and chunks of a packed bucket one by one, and blobs made of them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from blake3 import blake3

from tvix_store.backends.objectstore.packed.blobs import PackedBlobs
from tvix_store.backends.objectstore.packed.chunk_lists import ChunkListBuilder
from tvix_store.backends.objectstore.packed.contents import Content, Kind, Place
from tvix_store.backends.objectstore.packed.directories import PackedDirectories
from tvix_store.backends.objectstore.packed.engine import Engine
from tvix_store.backends.objectstore.packed.frames import PackedFrames
from tvix_store.compression.chunk_frames import checked_contents, compressed_chunks
from tvix_store.errors import IncompleteError, NotFoundError
from tvix_store.model.digest import Digest
from tvix_store.model.directory import Directory
from tvix_store.services.assembling import not_the_blob, wrong_chunk_size
from tvix_store.services.blobs import Chunk
from tvix_store.services.frames import Frame
from tvix_store.services.granular import MAX_CHUNK, StoredChunk

_AT_A_TIME = 64
"""Chunks that are read at a time for a new blob: some 8 MiB."""
_AT_ONCE = 2
"""Blobs that are assembled at a time."""


class PackedAssembling:
    """The Assembling of a packed bucket. A chunk that was itself cut when it was put is replaced by its own chunks."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._room = asyncio.Semaphore(_AT_ONCE)

    async def assemble(self, digest: Digest, chunks: Sequence[Chunk]) -> None:
        hasher = blake3()
        listed = ChunkListBuilder()
        for at in range(0, len(chunks), _AT_A_TIME):
            # In turns: a list of a few MiB may name 400 GiB, one and the same chunk over and over.
            async with self._room:
                await self._take(chunks[at : at + _AT_A_TIME], hasher, listed)
        if hasher.digest() != digest.raw:
            raise not_the_blob(digest)
        segments = list(listed.segments(digest.raw))
        if segments:
            await self._engine.committer.put(segments)

    async def _take(self, chunks: Sequence[Chunk], hasher: blake3, listed: ChunkListBuilder) -> None:
        """Read and check the next chunks, and list them."""
        engine = self._engine
        found = await engine.find([chunk.digest.raw for chunk in chunks])
        for chunk, each in zip(chunks, found, strict=True):
            if each is None:
                raise NotFoundError("blob", chunk.digest)
            if (each.length if isinstance(each, Place) else each) != chunk.size:
                raise wrong_chunk_size(chunk)
        parts: list[bytes] = []
        for chunk, each in zip(chunks, found, strict=True):
            if isinstance(each, Place):
                parts.append(chunk.digest.raw)
            else:
                parts += [key async for segment in engine.segments(chunk.digest) for key, _ in segment.entries]
        for at in range(0, len(parts), _AT_A_TIME):
            keys = list(dict.fromkeys(parts[at : at + _AT_A_TIME]))
            places = await engine.locate_all(Kind.CHUNK, keys)
            contents = dict(zip(keys, await engine.contents(Kind.CHUNK, keys, places), strict=True))
            for key in parts[at : at + _AT_A_TIME]:
                listed.add(key, len(contents[key]))
            await asyncio.to_thread(_hash, hasher, [contents[key] for key in parts[at : at + _AT_A_TIME]])


class PackedGranular:
    """The Granular of a packed bucket. A chunk is stored as the zstd frame that it came in, and given out as it is stored."""

    def __init__(self, engine: Engine, blobs: PackedBlobs, directories: PackedDirectories, frames: PackedFrames) -> None:
        self._engine = engine
        self._blobs = blobs
        self._directories = directories
        self._frames = frames
        self._assembling = PackedAssembling(engine)

    async def missing_directories(self, digests: Sequence[Digest]) -> set[Digest]:
        return await self._directories.missing(digests)

    async def get_directories(self, digests: Sequence[Digest]) -> list[Directory]:
        return await self._directories.get_all(digests)

    async def put_directories(self, directories: Sequence[Directory]) -> None:
        await self._directories.put_some(directories)

    async def list_chunks(self, blobs: Sequence[Chunk]) -> list[Sequence[Frame]]:
        return await self._frames.find_sized(blobs)

    async def get_chunks(self, chunks: Sequence[Frame]) -> list[StoredChunk]:
        stored = await self._frames.read_once(chunks)
        return [StoredChunk(chunk.digest, chunk.length, part) for chunk, part in zip(chunks, stored, strict=True)]

    async def missing_chunks(self, digests: Sequence[Digest]) -> set[Digest]:
        return await self._blobs.missing(digests)

    async def put_chunks(self, chunks: Sequence[StoredChunk]) -> None:
        contents = await asyncio.to_thread(_checked, chunks)
        unknown = await self._engine.committer.unknown([each.name for each in contents])
        new = [each for each in contents if each.name in unknown]
        if new:
            await self._engine.committer.put(new)

    async def assemble(self, digest: Digest, chunks: Sequence[Chunk]) -> None:
        try:
            await self._assembling.assemble(digest, chunks)
        except NotFoundError as error:
            raise IncompleteError(f"{error}; put it first") from error


def _checked(chunks: Sequence[StoredChunk]) -> list[Content]:
    checked_contents(chunks, MAX_CHUNK)
    return [Content(Kind.CHUNK, digest, bytes(stored), length) for digest, length, stored in compressed_chunks(chunks)]


def _hash(hasher: blake3, contents: Sequence[bytes]) -> None:
    for content in contents:
        hasher.update(content)
