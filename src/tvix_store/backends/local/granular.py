"""LocalGranular: directories and chunks of a local store, one by one."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

from tvix_store.backends.local.assembling import LocalAssembling
from tvix_store.backends.local.blob_writer import compressed, done
from tvix_store.backends.local.blobs import LocalBlobs
from tvix_store.backends.local.contents import Content
from tvix_store.backends.local.engine import Engine
from tvix_store.backends.local.frames import LocalFrames
from tvix_store.backends.local.records import Kind
from tvix_store.compression.chunk_frames import checked_contents
from tvix_store.errors import IncompleteError, NotFoundError
from tvix_store.model.digest import Digest
from tvix_store.model.directory import Directory
from tvix_store.model.directory_graph import LeavesToRoot
from tvix_store.services.blobs import Chunk
from tvix_store.services.frames import Frame
from tvix_store.services.granular import MAX_CHUNK, StoredChunk


class LocalGranular:
    """The Granular of a local store. A chunk is stored as the zstd frame that it came in, and given out as it is stored."""

    def __init__(self, engine: Engine, blobs: LocalBlobs, frames: LocalFrames, assembling: LocalAssembling) -> None:
        self._engine = engine
        self._blobs = blobs
        self._frames = frames
        self._assembling = assembling

    async def missing_directories(self, digests: Sequence[Digest]) -> set[Digest]:
        await self._engine.without_losses()
        return await self._engine.in_thread(self._missing_directories, digests)

    async def get_directories(self, digests: Sequence[Digest]) -> list[Directory]:
        return await self._engine.in_thread(self._directories, digests)

    async def put_directories(self, directories: Sequence[Directory]) -> None:
        await self._engine.without_losses()
        storing = await self._engine.in_thread(self._begin_to_store, directories)
        if storing is not None:
            await done(storing)
        await self._engine.taken_back()

    async def list_chunks(self, blobs: Sequence[Chunk]) -> list[Sequence[Frame]]:
        return list(await self._frames.find_sized(blobs))

    async def get_chunks(self, chunks: Sequence[Frame]) -> list[StoredChunk]:
        def told(stored: list[memoryview]) -> list[StoredChunk]:
            return [StoredChunk(chunk.digest, chunk.length, part) for chunk, part in zip(chunks, stored, strict=True)]

        return await self._frames.read_once(chunks, told)

    async def missing_chunks(self, digests: Sequence[Digest]) -> set[Digest]:
        return await self._blobs.missing(digests)

    async def put_chunks(self, chunks: Sequence[StoredChunk]) -> None:
        storing = await self._engine.in_thread(self._begin_to_store_chunks, chunks)
        if storing is not None:
            await done(storing)

    async def assemble(self, digest: Digest, chunks: Sequence[Chunk]) -> None:
        try:
            await self._assembling.assemble(digest, chunks)
        except NotFoundError as error:
            raise IncompleteError(f"{error}; put it first") from error

    def _missing_directories(self, digests: Sequence[Digest]) -> set[Digest]:
        # Not a condemned one: what is below it may go.
        return {digest for digest in digests if self._engine.index.live_place(Kind.DIRECTORY, digest.raw) is None}

    def _directories(self, digests: Sequence[Digest]) -> list[Directory]:
        directories: list[Directory] = []
        for digest in digests:
            directory = self._directory(digest)
            if directory is None:
                raise NotFoundError("directory", digest)
            directories.append(directory)
        return directories

    def _directory(self, digest: Digest) -> Directory | None:
        place = self._engine.index.directory(digest.raw)
        return None if place is None else Directory.stored(digest, self._engine.payload(digest.raw, place))

    def _begin_to_store(self, directories: Sequence[Directory]) -> Future[Any] | None:
        graph = LeavesToRoot(self._directory)
        for directory in directories:
            graph.add(directory)
        contents = {each.digest.raw: Content(Kind.DIRECTORY, each.digest.raw, each.encoded) for each in directories}
        unknown = self._engine.committer.unknown(list(contents.values()))
        return self._engine.committer.put_contents(unknown) if unknown else None

    def _begin_to_store_chunks(self, chunks: Sequence[StoredChunk]) -> Future[Any] | None:
        committer = self._engine.committer
        contents: list[Content] = []
        for chunk, payload in zip(chunks, checked_contents(chunks, MAX_CHUNK), strict=True):
            packed = chunk.stored if len(chunk.stored) < chunk.length else None
            contents.append(Content(Kind.CHUNK, chunk.digest, payload, packed=packed))
        unknown = compressed(self._engine, committer, contents)
        return committer.put_contents(unknown) if unknown else None
