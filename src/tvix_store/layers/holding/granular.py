"""HeldGranular, HeldAssembling: of the parts of a store's content those that a named cache holds."""

from __future__ import annotations

from collections.abc import Sequence

from tvix_store.errors import IncompleteError, InvalidError, NotFoundError
from tvix_store.layers.holding.content import HeldContent
from tvix_store.layers.holding.held import Kind
from tvix_store.layers.holding.quota import Room
from tvix_store.model.digest import Digest
from tvix_store.model.directory import Directory
from tvix_store.model.names import show
from tvix_store.services.assembling import Assembling
from tvix_store.services.blobs import Chunk
from tvix_store.services.frames import Frame
from tvix_store.services.granular import Granular, StoredChunk


class HeldGranular:
    """A Granular over `inner`. Parts that are put go to `inner`, and `taken` makes the cache hold them."""

    def __init__(self, inner: Granular, taken: HeldContent) -> None:
        self._inner = inner
        self._taken = taken
        self._held = taken.held

    async def missing_directories(self, digests: Sequence[Digest]) -> set[Digest]:
        return await self._held.missing(Kind.DIRECTORY, digests, self._inner.missing_directories)

    async def get_directories(self, digests: Sequence[Digest]) -> list[Directory]:
        await self._held.require(Kind.DIRECTORY, digests)
        return await self._inner.get_directories(digests)

    async def put_directories(self, directories: Sequence[Directory]) -> None:
        sent: dict[Digest, int] = {}
        for directory in directories:
            for name, child in directory.directories():
                if child.digest not in sent and not await self._held.has(Kind.DIRECTORY, child.digest):
                    raise InvalidError(
                        f"directory {directory.digest} refers to {child.digest} as {show(name)}, which was not sent before it"
                    )
            sent[directory.digest] = len(directory.encoded)
        with Room(self._taken.quota) as room:
            await room.grow(sum(sent.values()))
            await self._inner.put_directories(directories)
            await self._taken.take_directories(sent)

    async def list_chunks(self, blobs: Sequence[Chunk]) -> list[Sequence[Frame]]:
        await self._held.require(Kind.BLOB, (blob.digest for blob in blobs))
        return await self._inner.list_chunks(blobs)

    async def get_chunks(self, chunks: Sequence[Frame]) -> list[StoredChunk]:
        await self._held.require(Kind.BLOB, (Digest(chunk.digest) for chunk in chunks))
        return await self._inner.get_chunks(chunks)

    async def missing_chunks(self, digests: Sequence[Digest]) -> set[Digest]:
        return await self._held.missing(Kind.BLOB, digests, self._inner.missing_chunks)

    async def put_chunks(self, chunks: Sequence[StoredChunk]) -> None:
        with Room(self._taken.quota) as room:
            await room.grow(sum(chunk.length for chunk in chunks))
            await self._inner.put_chunks(chunks)
            await self._taken.take_blobs([Digest(chunk.digest) for chunk in chunks])

    async def assemble(self, digest: Digest, chunks: Sequence[Chunk]) -> None:
        for chunk in await self._held.lacking(Kind.BLOB, [each.digest for each in chunks]):
            raise IncompleteError(f"chunk {chunk} of blob {digest} is not in the store; put it first")
        await self._inner.assemble(digest, chunks)
        await self._taken.take_blobs((digest,), counts=False)


class HeldAssembling:
    """An Assembling over `inner`; blobs that are made there are `taken` into what the cache holds."""

    def __init__(self, inner: Assembling, taken: HeldContent) -> None:
        self._inner = inner
        self._taken = taken
        self._held = taken.held

    async def assemble(self, digest: Digest, chunks: Sequence[Chunk]) -> None:
        for chunk in await self._held.lacking(Kind.BLOB, [each.digest for each in chunks]):
            raise NotFoundError(Kind.BLOB.word, chunk)
        await self._inner.assemble(digest, chunks)
        await self._taken.take_blobs((digest,), counts=False)
