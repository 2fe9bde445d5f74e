"""SubstitutingPathInfos: paths that the store lacks come from upstream caches, once, and are kept. See docs/design/upstream.md."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Any, TypeVar

from tvix_store.errors import ConflictError, ExhaustedError
from tvix_store.layers.fetch_lock import FetchLock
from tvix_store.layers.substituter import Substituter
from tvix_store.model.path_info import PathInfo
from tvix_store.model.store_path import StorePath
from tvix_store.model.trust import NOBODY, Trust
from tvix_store.operations.shared_work import SharedWork
from tvix_store.services.store import Store

T = TypeVar("T")

_AT_ONCE = 4
"""NARs that are fetched at the same time; each takes some 20 MB."""
_INTRODUCTION = 5.0
"""Seconds for which the first who look for something wait until all upstreams have said who they are."""


class SubstitutingPathInfos:
    """A PathInfoService over a store and upstreams, which are asked in order of priority for what the store lacks.

    `store` gets the content and the path infos; puts go to it unchanged, and `list` lists what it has. `lock` is one that all
    processes share that use the store; None where there is but one.
    """

    def __init__(self, store: Store, substituters: Sequence[Substituter], lock: FetchLock | None = None) -> None:
        self._store = store
        self._substituters = list(substituters)
        self._lock = lock
        self._searches = SharedWork(self._begin)
        self._room = asyncio.Semaphore(_AT_ONCE)
        self._tasks: set[asyncio.Task[Any]] = set()
        """All that runs, also what nobody waits for any more and is about to end."""
        self._introductions: asyncio.Task[None] | None = None
        self._introduced_by = 0.0

    async def get(self, output_hash: bytes) -> PathInfo | None:
        """As `PathInfoService.get`. What an upstream does wrong is not raised; what the store raises while it is filled, is."""
        found = await self._store.path_infos.get(output_hash)
        return found if found is not None else await self._searches.result(output_hash)

    async def find_path(self, output_hash: bytes) -> StorePath | None:
        """The path that the store has, or that an upstream says, credibly, that it has. Nothing is fetched."""
        found = await self._store.path_infos.get(output_hash)
        if found is not None:
            return found.store_path
        await self._introduced()
        for substituter in self._in_order():
            narinfo = await substituter.narinfo(output_hash, self._store.store_dir)
            if narinfo is not None:
                return narinfo.store_path
        return None

    async def put(self, path_info: PathInfo, trust: Trust = NOBODY) -> PathInfo:
        for substituter in self._substituters:
            substituter.forget(path_info.store_path.output_hash)
        return await self._store.path_infos.put(path_info, trust)

    def list(self) -> AsyncIterator[PathInfo]:
        return self._store.path_infos.list()

    async def close(self) -> None:
        """End what is running, and the connections."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for substituter in self._substituters:
            await substituter.close()

    def _begin(self, output_hash: bytes) -> asyncio.Task[PathInfo | None]:
        return self._start(self._search(output_hash))

    async def _search(self, output_hash: bytes) -> PathInfo | None:
        await self._introduced()
        exhausted: ExhaustedError | None = None
        for substituter in self._in_order():
            narinfo = await substituter.narinfo(output_hash, self._store.store_dir)
            if narinfo is None:
                continue
            async with self._holding(output_hash), self._room:
                # Another process may have fetched it while we waited, or a client put it.
                found = await self._store.path_infos.get(output_hash)
                if found is not None:
                    return found
                try:
                    path_info = await substituter.fetch(self._store, narinfo)
                except ExhaustedError as error:
                    # Over a limit, which another cache's NAR may not be; or the disk is full, which the next will meet too.
                    exhausted = error
                    continue
                if path_info is not None:
                    return await self._kept(path_info)
        if exhausted is not None:
            raise exhausted
        return None

    def _in_order(self) -> Sequence[Substituter]:
        return sorted(self._substituters, key=lambda each: each.priority)  # stable: where equal, as they were given

    async def _kept(self, path_info: PathInfo) -> PathInfo | None:
        try:
            return await self._store.path_infos.put(path_info)
        except ConflictError:  # somebody has put another meanwhile, which counts: the store is asked first
            return await self._store.path_infos.get(path_info.store_path.output_hash)

    def _holding(self, output_hash: bytes) -> AbstractAsyncContextManager[None]:
        return self._lock.holding(output_hash) if self._lock is not None else nullcontext()

    async def _introduced(self) -> None:
        """Wait until the order is known, but not for long: who does not answer in time takes its place when it does."""
        clock = asyncio.get_running_loop().time
        if self._introductions is None:
            self._introductions = self._start(self._introduce())
            self._introduced_by = clock() + _INTRODUCTION
        if not self._introductions.done():
            await asyncio.wait((self._introductions,), timeout=max(0.0, self._introduced_by - clock()))
        if self._introductions.done():
            self._introductions.result()  # raises what nobody foresaw

    async def _introduce(self) -> None:
        await asyncio.gather(*(substituter.introduce() for substituter in self._substituters))

    def _start(self, work: Coroutine[None, None, T]) -> asyncio.Task[T]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
