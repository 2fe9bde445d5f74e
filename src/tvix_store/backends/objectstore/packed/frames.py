"""PackedFrames: the chunks of a packed bucket as they lie in its packs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TypeVar

from tvix_store.backends.objectstore.packed.contents import DIGEST_SIZE, Kind, Place
from tvix_store.backends.objectstore.packed.engine import Engine
from tvix_store.errors import CorruptError, NotFoundError
from tvix_store.model.chunk_table import ChunkTable
from tvix_store.model.digest import Digest
from tvix_store.services.blobs import Chunk
from tvix_store.services.frames import Frame, Run
from tvix_store.services.granular import wrong_size
from tvix_store.services.listed import listed_frames

T = TypeVar("T")


class PackedFrames:
    """The StoredFrames of a packed bucket."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def find(self, digests: Sequence[Digest]) -> list[list[Frame]]:
        return [list(each) for each in await self._find(digests, None)]

    async def read(self, runs: Sequence[Run], use: Callable[[list[list[memoryview]]], T]) -> T:
        digests = [[run[at : at + DIGEST_SIZE] for at in range(0, len(run), DIGEST_SIZE)] for run in runs]
        flat = [digest for each in digests for digest in each]
        places = await self._places(flat)
        try:
            return await self._used(places, digests, use)
        except CorruptError:
            # Damage is found here, and forgotten. What lies elsewhere, too, is read from there.
            distinct = dict(zip(flat, places, strict=True))
            await self._engine.contents(Kind.CHUNK, list(distinct), list(distinct.values()))
            now = await self._places(flat)
            if now == places:
                raise
            return await self._used(now, digests, use)

    async def read_once(self, chunks: Sequence[Frame]) -> list[memoryview]:
        """What is stored of chunks whose lengths are stated.

        Raises:
            InvalidError: one has another length. Nothing was read.
            NotFoundError, CorruptError: as `read`.
        """
        places = await self._places([chunk.digest for chunk in chunks])
        for chunk, place in zip(chunks, places, strict=True):
            if place.length != chunk.length:
                raise wrong_size("chunk", Digest(chunk.digest), chunk.length)
        return await self._stored(places)

    async def find_sized(self, blobs: Sequence[Chunk]) -> list[Sequence[Frame]]:
        """As `find`, of blobs whose sizes are stated.

        Raises:
            InvalidError: one has another size. Its list was not read.
        """
        return await self._find([blob.digest for blob in blobs], [blob.size for blob in blobs])

    async def _find(self, digests: Sequence[Digest], sizes: Sequence[int] | None) -> list[Sequence[Frame]]:
        found = await self._engine.find([digest.raw for digest in digests])
        frames: list[Sequence[Frame]] = []
        for number, (digest, each) in enumerate(zip(digests, found, strict=True)):
            if each is None:
                raise NotFoundError("blob", digest)
            size = each.length if isinstance(each, Place) else each
            if sizes is not None and sizes[number] != size:
                raise wrong_size("blob", digest, sizes[number])
            frames.append([Frame(digest.raw, each.length, each.stored)] if isinstance(each, Place) else await self._cut(digest))
        return frames

    async def _cut(self, digest: Digest) -> Sequence[Frame]:
        """The chunks of a cut blob. A long list is kept as a table."""
        tables: list[ChunkTable] = []
        async for segment in self._engine.segments(digest):
            chunks = [chunk for chunk, _ in segment.entries]
            places = await self._engine.locate(Kind.CHUNK, chunks)
            missing = next((chunk for chunk, place in zip(chunks, places, strict=True) if place is None), None)
            if missing is not None:
                await self._engine.forget_list(digest)
                raise CorruptError(f"blob {digest} is damaged: its chunk b3:{missing.hex()} is missing")
            rows = [(chunk, place.length, place.stored) for chunk, place in zip(chunks, places, strict=True) if place is not None]
            tables.append(ChunkTable.of(rows))
        return listed_frames(ChunkTable.joined(tables))

    async def _places(self, digests: Sequence[bytes]) -> list[Place]:
        places = await self._engine.locate(Kind.CHUNK, digests)
        for digest, place in zip(digests, places, strict=True):
            if place is None:
                raise NotFoundError("chunk", f"b3:{digest.hex()}")
        return [place for place in places if place is not None]

    async def _stored(self, places: Sequence[Place]) -> list[memoryview]:
        stored: list[memoryview] = []
        for place, data in zip(places, await self._engine.reader.read(places), strict=True):
            if data is None:
                raise CorruptError(f"{self._engine.bucket.name}/{place.key} is not there, or cut short")
            stored.append(data)
        return stored

    async def _used(
        self, places: Sequence[Place], digests: Sequence[Sequence[bytes]], use: Callable[[list[list[memoryview]]], T]
    ) -> T:
        stored = iter(await self._stored(places))
        return await asyncio.to_thread(use, [[next(stored) for _ in each] for each in digests])
