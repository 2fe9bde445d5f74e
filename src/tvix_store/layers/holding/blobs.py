"""HeldBlobs: of the blobs of a store those that a named cache holds."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AbstractContextManager, aclosing
from typing import Any, TypeAlias, cast

from tvix_store.errors import NotFoundError
from tvix_store.layers.holding.held import Held, Kind
from tvix_store.layers.holding.quota import Room
from tvix_store.model.digest import Digest
from tvix_store.services.blobs import BlobService, BlobStat
from tvix_store.services.staging import Staging

Sent: TypeAlias = Callable[[Sequence[Digest]], Coroutine[Any, Any, None]]
"""Called with the digests of blobs that were sent to the cache, and are stored."""


class HeldBlobs:
    """A BlobService over `inner`. Blobs that are put go there, where `room` has room for them, and `sent` then hears of them.

    With `staging`, a blob that comes in pieces goes to a stage of its own. So one that breaks off leaves nothing.
    """

    def __init__(
        self,
        inner: BlobService,
        held: Held,
        room: Callable[[], AbstractContextManager[Room]],
        sent: Sent,
        staging: Staging | None = None,
    ) -> None:
        self._inner = inner
        self._held = held
        self._room = room
        self._sent = sent
        self._staging = staging

    async def stat(self, digest: Digest, *, chunks: bool = False) -> BlobStat | None:
        return await self._inner.stat(digest, chunks=chunks) if await self._held.has(Kind.BLOB, digest) else None

    async def missing(self, digests: Sequence[Digest]) -> set[Digest]:
        return await self._held.missing(Kind.BLOB, digests, self._inner.missing)

    async def read(self, digest: Digest, start: int = 0, stop: int | None = None) -> AsyncIterator[bytes]:
        if not await self._held.has(Kind.BLOB, digest):
            raise NotFoundError(Kind.BLOB.word, digest)
        pieces = cast("AsyncGenerator[bytes, None]", self._inner.read(digest, start, stop))
        async with aclosing(pieces):
            async for piece in pieces:
                yield piece

    async def put(self, data: AsyncIterable[bytes]) -> Digest:
        with self._room() as room:

            async def admitted() -> AsyncIterator[bytes]:
                async for piece in data:
                    await room.grow(len(piece))
                    yield piece

            digest = await self._put(admitted())
            await self._sent((digest,))
        return digest

    async def _put(self, data: AsyncIterable[bytes]) -> Digest:
        if self._staging is None:
            return await self._inner.put(data)
        stage = self._staging.begin()
        try:
            digest = await stage.blobs.put(data)
            await stage.accept()
        finally:
            await stage.close()
        return digest

    async def put_many(self, blobs: Sequence[bytes]) -> list[Digest]:
        with self._room() as room:
            await room.grow(sum(map(len, blobs)))
            digests = await self._inner.put_many(blobs)
            await self._sent(digests)
        return digests

    async def get_many(self, digests: Sequence[Digest]) -> list[bytes | None]:
        lacking = await self._held.lacking(Kind.BLOB, digests)
        there = [digest for digest in digests if digest not in lacking]
        found = dict(zip(there, await self._inner.get_many(there), strict=True)) if there else {}
        return [found.get(digest) for digest in digests]
