"""PlainGranular: the Granular of a store that has no better one, by its blob and its directory service."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

from tvix_store.compression.chunk_frames import checked_contents
from tvix_store.concurrency.each_at_once import each_at_once, missing_at_once
from tvix_store.errors import NotFoundError
from tvix_store.model.digest import Digest
from tvix_store.model.directory import Directory
from tvix_store.model.directory_graph import LeavesToRoot
from tvix_store.operations.granular.assemble_blob import assemble_blob
from tvix_store.services.assembling import Assembling
from tvix_store.services.blobs import SMALL_BLOB, BlobService, Chunk
from tvix_store.services.directories import DirectoryService
from tvix_store.services.frames import Frame
from tvix_store.services.granular import MAX_CHUNK, Granular, StoredChunk, check_directories, wrong_size
from tvix_store.services.store import Store


def granular_of(store: Store) -> Granular:
    """The Granular of any store."""
    return store.granular or PlainGranular(store.blobs, store.directories, store.assembling)


class PlainGranular:
    """A Granular by calls for each directory and blob. Chunks are put and given out as blobs, not compressed."""

    def __init__(self, blobs: BlobService, directories: DirectoryService, assembling: Assembling | None) -> None:
        self._blobs = blobs
        self._directories = directories
        self._assembling = assembling

    async def missing_directories(self, digests: Sequence[Digest]) -> set[Digest]:
        return await missing_at_once(self._is_there, digests)

    async def get_directories(self, digests: Sequence[Digest]) -> list[Directory]:
        size = 0

        async def got(digest: Digest) -> Directory:
            nonlocal size
            directory = await self._directory(digest)
            size += len(directory.encoded)
            check_directories(size)
            return directory

        return await each_at_once(got, digests)

    async def put_directories(self, directories: Sequence[Directory]) -> None:
        """As `Granular.put_directories`. What the store has below them is put with them: the service takes whole graphs."""
        new = {directory.digest: directory for directory in directories}
        children = {child.digest for directory in directories for _, child in directory.directories()}
        others = [digest for digest in children if digest not in new]
        found = dict(zip(others, await each_at_once(self._directories.get, others), strict=True))
        graph = LeavesToRoot(found.get)
        for directory in directories:
            graph.add(directory)
        for digest, directory in new.items():
            if digest not in children:
                await self._directories.put(self._graph(directory, new))

    async def list_chunks(self, blobs: Sequence[Chunk]) -> list[Sequence[Frame]]:
        return await each_at_once(self._chunks, blobs)

    async def get_chunks(self, chunks: Sequence[Frame]) -> list[StoredChunk]:
        small = [chunk for chunk in chunks if chunk.length <= SMALL_BLOB]
        digests = [Digest(chunk.digest) for chunk in small]
        contents = dict(zip(digests, await self._blobs.get_many(digests), strict=True)) if small else {}

        async def stored(chunk: Frame) -> StoredChunk:
            digest = Digest(chunk.digest)
            content = contents[digest] if chunk.length <= SMALL_BLOB else await self._large(digest, chunk.length)
            if content is None:
                raise NotFoundError("blob", digest)
            if len(content) != chunk.length:
                raise wrong_size("chunk", digest, chunk.length)
            return StoredChunk(chunk.digest, chunk.length, content)

        return await each_at_once(stored, chunks)

    async def missing_chunks(self, digests: Sequence[Digest]) -> set[Digest]:
        return await self._blobs.missing(digests)

    async def put_chunks(self, chunks: Sequence[StoredChunk]) -> None:
        contents = [bytes(each) for each in await asyncio.to_thread(checked_contents, chunks, MAX_CHUNK)]
        small = [content for content in contents if len(content) <= SMALL_BLOB]
        if small:
            await self._blobs.put_many(small)
        await each_at_once(self._put, [content for content in contents if len(content) > SMALL_BLOB])

    async def assemble(self, digest: Digest, chunks: Sequence[Chunk]) -> None:
        await assemble_blob(self._blobs, self._assembling, digest, chunks)

    async def _is_there(self, digest: Digest) -> bool:
        return await self._directories.get(digest) is not None

    async def _directory(self, digest: Digest) -> Directory:
        directory = await self._directories.get(digest)
        if directory is None:
            raise NotFoundError("directory", digest)
        return directory

    async def _graph(self, root: Directory, new: dict[Digest, Directory]) -> AsyncIterator[Directory]:
        """All directories that the root reaches, from the leaves. They are `new`, or the store has them."""
        sent: set[Digest] = set()
        entered: list[tuple[Directory, list[Digest]]] = [(root, [child.digest for _, child in root.directories()])]
        while entered:
            directory, children = entered[-1]
            if not children:
                entered.pop()
                if directory.digest not in sent:
                    sent.add(directory.digest)
                    yield directory
                continue
            child = children.pop()
            if child not in sent:
                below = new.get(child) or await self._directory(child)
                entered.append((below, [each.digest for _, each in below.directories()]))

    async def _chunks(self, blob: Chunk) -> Sequence[Frame]:
        stat = await self._blobs.stat(blob.digest, chunks=True)
        if stat is None:
            raise NotFoundError("blob", blob.digest)
        if (sum(chunk.size for chunk in stat.chunks) if stat.chunks else stat.size) not in (None, blob.size):
            raise wrong_size("blob", blob.digest, blob.size)
        return [Frame(chunk.digest.raw, chunk.size, chunk.size) for chunk in stat.chunks or (blob,)]

    async def _large(self, digest: Digest, length: int) -> bytes:
        content = bytearray()
        async for piece in self._blobs.read(digest, 0, min(length, MAX_CHUNK) + 1):
            content += piece
        return bytes(content)

    async def _put(self, content: bytes) -> None:
        async def pieces() -> AsyncIterator[bytes]:
            yield content

        await self._blobs.put(pieces())
