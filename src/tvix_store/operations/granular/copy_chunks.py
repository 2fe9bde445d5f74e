"""ChunkCopier: moves single chunks from one store to another."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any

from tvix_store.concurrency.coalesced import Coalesced
from tvix_store.errors import CorruptError, InvalidError
from tvix_store.operations.granular.account import Account
from tvix_store.services.frames import Frame
from tvix_store.services.granular import MAX_STORED, Granular, Parts

_AT_ONCE = 8
"""Batches under way: with 1 MiB each, a round trip of 50 ms bounds the rate to 160 MB/s."""
_RATIO = 16
"""A batch has at most so many times as many bytes of content as of stored chunks: 16 MiB. It is decompressed to be checked, and a
source may say that its chunks are stored in a byte each."""


class ChunkCopier:
    """Copies chunks, each once, however many ask for it at the same time; those of many callers travel together.

    `name` names the source, for messages.
    """

    def __init__(self, source: Parts, target: Granular, name: str, account: Account) -> None:
        self._source = source
        self._target = target
        self._name = name
        self._account = account
        self._batches = Coalesced(self._copy_batch, most=MAX_STORED, at_once=_AT_ONCE, weigh=_weight)
        self._under_way: dict[bytes, asyncio.Future[Any]] = {}
        self._running = 0
        self._busy = self._busy_since = 0.0
        self._moved = 0

    @property
    def rate(self) -> float | None:
        """Bytes of stored chunks that were moved in a second, while some were being moved; None before the first MiB."""
        busy = self._busy + (_now() - self._busy_since if self._running else 0)
        return self._moved / busy if self._moved >= MAX_STORED and busy else None

    async def copy(self, chunks: Iterable[Frame]) -> None:
        """Return when the target has all these chunks. It lacks them: the caller has asked.

        Raises:
            CorruptError: what the source gives is not the chunk.
            NotFoundError: the source has a chunk no more.
            ExhaustedError: the target is full.
        """
        distinct = {chunk.digest: chunk for chunk in chunks}
        others: dict[asyncio.Future[Any], list[Frame]] = {}
        for digest, chunk in distinct.items():
            if digest in self._under_way:
                others.setdefault(self._under_way[digest], []).append(chunk)
        own = [chunk for digest, chunk in distinct.items() if digest not in self._under_way]
        if own:
            copying = asyncio.ensure_future(self._batches(own))
            for chunk in own:
                self._under_way[chunk.digest] = copying
            try:
                await copying
            finally:
                for chunk in own:
                    del self._under_way[chunk.digest]
        for other, its_chunks in others.items():
            await self._after(other, its_chunks)

    async def _after(self, other: asyncio.Future[Any], chunks: Sequence[Frame]) -> None:
        """Wait for another caller's copy. Where that was stopped, or failed, the chunks are copied here."""
        await asyncio.wait((other,))
        if other.cancelled() or other.exception() is not None:
            await self._batches(chunks)

    async def close(self) -> None:
        """End all that is under way."""
        await self._batches.close()

    async def _copy_batch(self, chunks: Sequence[Frame]) -> Sequence[None]:
        if not self._running:
            self._busy_since = _now()
        self._running += 1
        try:
            moved = await self._move(chunks)
        finally:
            self._running -= 1
            if not self._running:
                self._busy += _now() - self._busy_since
        self._moved += moved
        self._account.sent += moved
        self._account.chunks += len(chunks)
        return [None] * len(chunks)

    async def _move(self, chunks: Sequence[Frame]) -> int:
        stored = await self._source.get_chunks(chunks)
        if [(each.digest, each.length) for each in stored] != [(chunk.digest, chunk.length) for chunk in chunks]:
            raise CorruptError(f"{self._name} gives other chunks than it was asked for")
        try:
            await self._target.put_chunks(stored)
        except InvalidError as error:
            raise CorruptError(f"{self._name} gives wrong content: {error}") from None
        return sum(len(chunk.stored) for chunk in stored)


def _now() -> float:
    return asyncio.get_running_loop().time()


def _weight(chunk: Frame) -> int:
    return max(chunk.stored, chunk.length // _RATIO)
