"""A Granular that remembers what passes it, and goes wrong where a test says so."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from tvix_store.model.digest import Digest
from tvix_store.model.directory import Directory
from tvix_store.operations.granular.plain import granular_of
from tvix_store.services.blobs import Chunk
from tvix_store.services.frames import Frame
from tvix_store.services.granular import Granular, StoredChunk
from tvix_store.services.store import Store


class Watched:
    """What was read and put, in order. A test replaces the functions to make lies and failures."""

    def __init__(self, inner: Granular) -> None:
        self._inner = inner
        self.directories_got: list[Digest] = []
        self.directories_put: list[Digest] = []
        self.chunks_got: list[bytes] = []
        self.chunks_put: list[bytes] = []
        self.calls = 0
        self.change_directory: Callable[[Directory], Directory] = lambda directory: directory
        self.change_chunk: Callable[[StoredChunk], StoredChunk] = lambda chunk: chunk
        self.change_list: Callable[[Chunk, Sequence[Frame]], Sequence[Frame]] = lambda blob, chunks: chunks
        self.before_chunks: Callable[[], None] = lambda: None

    async def missing_directories(self, digests: Sequence[Digest]) -> set[Digest]:
        self.calls += 1
        return await self._inner.missing_directories(digests)

    async def missing_chunks(self, digests: Sequence[Digest]) -> set[Digest]:
        self.calls += 1
        return await self._inner.missing_chunks(digests)

    async def get_directories(self, digests: Sequence[Digest]) -> list[Directory]:
        self.calls += 1
        self.directories_got += digests
        return [self.change_directory(each) for each in await self._inner.get_directories(digests)]

    async def put_directories(self, directories: Sequence[Directory]) -> None:
        self.calls += 1
        await self._inner.put_directories(directories)
        self.directories_put += [each.digest for each in directories]

    async def list_chunks(self, blobs: Sequence[Chunk]) -> list[Sequence[Frame]]:
        self.calls += 1
        listed = await self._inner.list_chunks(blobs)
        return [self.change_list(blob, chunks) for blob, chunks in zip(blobs, listed, strict=True)]

    async def get_chunks(self, chunks: Sequence[Frame]) -> list[StoredChunk]:
        self.calls += 1
        self.before_chunks()
        self.chunks_got += [chunk.digest for chunk in chunks]
        return [self.change_chunk(each) for each in await self._inner.get_chunks(chunks)]

    async def put_chunks(self, chunks: Sequence[StoredChunk]) -> None:
        self.calls += 1
        await self._inner.put_chunks(chunks)
        self.chunks_put += [chunk.digest for chunk in chunks]

    async def assemble(self, digest: Digest, chunks: Sequence[Chunk]) -> None:
        self.calls += 1
        await self._inner.assemble(digest, chunks)


def watched(store: Store) -> tuple[Store, Watched]:
    """The store, and what sees its granular calls."""
    granular = Watched(granular_of(store))
    return replace(store, granular=granular), granular
