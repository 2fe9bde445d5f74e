"""HeldBlobs: of the blobs of a store those that a named cache holds."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Coroutine, Sequence
from contextlib import aclosing
from typing import Any, TypeAlias, cast

from tvix_store.errors import NotFoundError
from tvix_store.layers.holding.held import Held, Kind
from tvix_store.model.digest import Digest
from tvix_store.services.blobs import BlobService, BlobStat

Sent: TypeAlias = Callable[[Sequence[Digest], int], Coroutine[Any, Any, None]]
"""Called with the digests of blobs that were sent to the cache, and are stored, and with the bytes of all of them."""
Admit: TypeAlias = Callable[[int], Coroutine[Any, Any, None]]
"""Called with the bytes that one put has brought so far. Raises ExhaustedError where the cache has no room for them."""
_ASKED = 16 << 20
"""Bytes of a long blob after which it is looked again whether there is room for it."""


class HeldBlobs:
    """A BlobService over `inner`. Blobs that are put go there, where `admit` lets them, and `sent` then hears of them."""

    def __init__(self, inner: BlobService, held: Held, admit: Admit, sent: Sent) -> None:
        self._inner = inner
        self._held = held
        self._admit = admit
        self._sent = sent

    async def stat(self, digest: Digest, *, chunks: bool = False) -> BlobStat | None:
        return await self._inner.stat(digest, chunks=chunks) if await self._held.has(Kind.BLOB, digest) else None

    async def missing(self, digests: Sequence[Digest]) -> set[Digest]:
        """As `BlobService.missing`. What is stored, and not held, is missing: it has to be sent, and is not stored again."""
        lacking = await self._held.lacking(Kind.BLOB, digests)
        there = [digest for digest in digests if digest not in lacking]
        return lacking | await self._inner.missing(there) if there else lacking

    async def read(self, digest: Digest, start: int = 0, stop: int | None = None) -> AsyncIterator[bytes]:
        if not await self._held.has(Kind.BLOB, digest):
            raise NotFoundError(Kind.BLOB.word, digest)
        pieces = cast("AsyncGenerator[bytes, None]", self._inner.read(digest, start, stop))
        async with aclosing(pieces):
            async for piece in pieces:
                yield piece

    async def put(self, data: AsyncIterable[bytes]) -> Digest:
        size = asked = 0

        async def admitted() -> AsyncIterator[bytes]:
            nonlocal size, asked
            async for piece in data:
                size += len(piece)
                if size >= asked:
                    await self._admit(size)
                    asked = size + _ASKED
                yield piece
            await self._admit(size)

        digest = await self._inner.put(admitted())
        await self._sent((digest,), size)
        return digest

    async def put_many(self, blobs: Sequence[bytes]) -> list[Digest]:
        size = sum(map(len, blobs))
        await self._admit(size)
        digests = await self._inner.put_many(blobs)
        await self._sent(digests, size)
        return digests

    async def get_many(self, digests: Sequence[Digest]) -> list[bytes | None]:
        lacking = await self._held.lacking(Kind.BLOB, digests)
        there = [digest for digest in digests if digest not in lacking]
        found = dict(zip(there, await self._inner.get_many(there), strict=True)) if there else {}
        return [found.get(digest) for digest in digests]
