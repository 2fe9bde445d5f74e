"""CachedFrames: the stored frames of a far store, by way of a near one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TypeVar

from tvix_store.concurrency.shared_calls import SharedCalls
from tvix_store.errors import CorruptError
from tvix_store.layers.cache.entries import CHUNK, LIST, chunk_of_stored, exact_stored, read_list_with_stored, write_list
from tvix_store.layers.cache.fills import Fills
from tvix_store.model.chunk_table import ChunkTable
from tvix_store.model.digest import Digest
from tvix_store.services.frames import Frame, Run, StoredFrames

T = TypeVar("T")

_DIGEST = 32


class CachedFrames:
    """A StoredFrames over `far`. It keeps the very bytes that far stores, on which the plans of NARs rest."""

    def __init__(self, near: Fills, far: StoredFrames) -> None:
        self._near = near
        self._far = far
        self._share = SharedCalls(self._got)

    async def find(self, digests: Sequence[Digest]) -> list[list[Frame]]:
        tables = await self._near.get(LIST, [digest.raw for digest in digests], read_list_with_stored)
        lacking = list(dict.fromkeys(digest for digest, table in zip(digests, tables, strict=True) if table is None))
        fetched = dict(zip(lacking, await self._far.find(lacking), strict=True)) if lacking else {}
        self._near.put({LIST + digest.raw: write_list(digest.raw, ChunkTable.of(found)) for digest, found in fetched.items()})
        return [
            fetched[digest] if table is None else list(map(Frame._make, table))
            for digest, table in zip(digests, tables, strict=True)
        ]

    async def read(self, runs: Sequence[Run], use: Callable[[list[list[memoryview]]], T]) -> T:
        wanted = list(dict.fromkeys(run[at : at + _DIGEST] for run in runs for at in range(0, len(run), _DIGEST)))
        stored = dict(zip(wanted, await self._share(wanted), strict=True))
        try:
            return await asyncio.to_thread(_used, runs, stored, use)
        except CorruptError:
            damaged = await asyncio.to_thread(_damaged, stored)
            if not damaged:
                raise
        stored |= zip(damaged, await self._fetched(damaged), strict=True)
        return await asyncio.to_thread(_used, runs, stored, use)

    async def _got(self, digests: Sequence[bytes]) -> list[memoryview]:
        kept = await self._near.get(CHUNK, digests, lambda _, value: exact_stored(value))
        lacking = [digest for digest, stored in zip(digests, kept, strict=True) if stored is None]
        fetched = iter(await self._fetched(lacking)) if lacking else iter(())
        return [next(fetched) if stored is None else stored for stored in kept]

    async def _fetched(self, digests: Sequence[bytes]) -> list[memoryview]:
        stored = await self._far.read([b"".join(digests)], lambda stored: [bytes(each) for each in stored[0]])
        values = await asyncio.to_thread(_checked, digests, stored)
        self._near.put(values)
        return [memoryview(each) for each in stored]


def _used(runs: Sequence[Run], stored: dict[bytes, memoryview], use: Callable[[list[list[memoryview]]], T]) -> T:
    return use([[stored[run[at : at + _DIGEST]] for at in range(0, len(run), _DIGEST)] for run in runs])


def _checked(digests: Sequence[bytes], stored: Sequence[bytes]) -> dict[bytes, bytes]:
    """Keys and values of the chunks that are not damaged."""
    values = ((digest, chunk_of_stored(digest, each)) for digest, each in zip(digests, stored, strict=True))
    return {CHUNK + digest: value for digest, value in values if value is not None}


def _damaged(stored: dict[bytes, memoryview]) -> list[bytes]:
    return [digest for digest, each in stored.items() if chunk_of_stored(digest, bytes(each)) is None]
