"""CountedBlobs: counts the bytes read from a blob service for a progress bar."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Sequence

from tvix_store.cli.progress import Bar
from tvix_store.model.digest import Digest
from tvix_store.services.blobs import BlobService, BlobStat


class CountedBlobs:
    """A BlobService that passes everything on."""

    def __init__(self, inner: BlobService, bar: Bar) -> None:
        self._inner = inner
        self._bar = bar

    async def stat(self, digest: Digest, *, chunks: bool = False) -> BlobStat | None:
        return await self._inner.stat(digest, chunks=chunks)

    async def missing(self, digests: Sequence[Digest]) -> set[Digest]:
        return await self._inner.missing(digests)

    async def read(self, digest: Digest, start: int = 0, stop: int | None = None) -> AsyncIterator[bytes]:
        async for piece in self._inner.read(digest, start, stop):
            self._bar.add(0, len(piece))
            yield piece
        self._bar.add(1, 0)

    async def put(self, data: AsyncIterable[bytes]) -> Digest:
        return await self._inner.put(data)

    async def put_many(self, blobs: Sequence[bytes]) -> list[Digest]:
        return await self._inner.put_many(blobs)

    async def get_many(self, digests: Sequence[Digest]) -> list[bytes | None]:
        contents = await self._inner.get_many(digests)
        self._bar.add(len(contents), sum(len(content) for content in contents if content is not None))
        return contents
