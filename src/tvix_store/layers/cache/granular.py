"""CachedGranular: the parts of a far store's content, by way of a near one."""

from __future__ import annotations

from collections.abc import Sequence

from tvix_store.layers.cache.chunks import Chunks
from tvix_store.layers.cache.directories import CachedDirectories
from tvix_store.layers.cache.entries import LIST, of_directories, of_stored_chunks, read_list_with_stored
from tvix_store.layers.cache.fills import Fills
from tvix_store.model.digest import Digest
from tvix_store.model.directory import Directory
from tvix_store.services.blobs import Chunk
from tvix_store.services.frames import Frame
from tvix_store.services.granular import Granular, StoredChunk, wrong_size
from tvix_store.services.listed import listed_frames


class CachedGranular:
    """A Granular over `far`, which alone tells what is missing. Parts that are put are near when far has them."""

    def __init__(self, near: Fills, far: Granular, chunks: Chunks, directories: CachedDirectories) -> None:
        self._near = near
        self._far = far
        self._chunks = chunks
        self._directories = directories
        self.missing_directories = far.missing_directories
        self.missing_chunks = far.missing_chunks
        self.assemble = far.assemble

    async def get_directories(self, digests: Sequence[Digest]) -> list[Directory]:
        known = await self._directories.known(digests)
        lacking = list(dict.fromkeys(digest for digest, found in zip(digests, known, strict=True) if found is None))
        fetched = dict(zip(lacking, await self._far.get_directories(lacking), strict=True)) if lacking else {}
        self._near.put(of_directories(fetched.values()))
        return [fetched[digest] if found is None else found for digest, found in zip(digests, known, strict=True)]

    async def put_directories(self, directories: Sequence[Directory]) -> None:
        await self._far.put_directories(directories)
        self._near.put(of_directories(directories))

    async def list_chunks(self, blobs: Sequence[Chunk]) -> list[Sequence[Frame]]:
        tables = await self._near.get(LIST, [blob.digest.raw for blob in blobs], read_list_with_stored)
        for blob, table in zip(blobs, tables, strict=True):
            if table is not None and table.size != blob.size:
                raise wrong_size("blob", blob.digest, blob.size)
        lacking = list(dict.fromkeys(blob for blob, table in zip(blobs, tables, strict=True) if table is None))
        fetched = dict(zip(lacking, await self._far.list_chunks(lacking), strict=True)) if lacking else {}
        return [fetched[blob] if table is None else listed_frames(table) for blob, table in zip(blobs, tables, strict=True)]

    async def get_chunks(self, chunks: Sequence[Frame]) -> list[StoredChunk]:
        kept = await self._chunks.get([Chunk(Digest(chunk.digest), chunk.length) for chunk in chunks])
        for chunk, each in zip(chunks, kept, strict=True):
            if len(each.content) != chunk.length:
                raise wrong_size("chunk", Digest(chunk.digest), chunk.length)
        return [StoredChunk(chunk.digest, chunk.length, each.stored) for chunk, each in zip(chunks, kept, strict=True)]

    async def put_chunks(self, chunks: Sequence[StoredChunk]) -> None:
        await self._far.put_chunks(chunks)
        self._near.put(of_stored_chunks(chunks, is_exact=False))
