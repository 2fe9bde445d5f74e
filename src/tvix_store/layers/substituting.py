"""SubstitutingPathInfos: paths that the store lacks come from upstream caches, once, and are kept. See docs/design/upstream.md."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext

from tvix_store.concurrency.each_at_once import each_at_once
from tvix_store.concurrency.single_flight import SingleFlight
from tvix_store.errors import ConflictError, ExhaustedError
from tvix_store.layers.fetch_lock import FetchLock
from tvix_store.layers.substituters import Substituters
from tvix_store.model.path_info import PathInfo
from tvix_store.model.store_path import StorePath
from tvix_store.model.trust import NOBODY, Trust
from tvix_store.services.store import Store
from tvix_store.telemetry import notes

_ASKED_AT_ONCE = 64
"""Paths about which upstreams are asked at the same time."""


class SubstitutingPathInfos:
    """A PathInfoService over a store and upstreams, which are asked in order of priority for what the store lacks.

    `store` gets the content and the path infos; puts go to it unchanged, and `list` lists what it has. `lock` is one that all
    processes share that use the store; None where there is but one.
    """

    def __init__(self, store: Store, substituters: Substituters, lock: FetchLock | None = None) -> None:
        self._store = store
        self._substituters = substituters
        self._lock = lock
        self._searches = SingleFlight(self._begin)
        self._tasks: set[asyncio.Task[PathInfo | None]] = set()
        """All that runs, also what nobody waits for any more and is about to end."""

    async def get(self, output_hash: bytes) -> PathInfo | None:
        """As `PathInfoService.get`. What an upstream does wrong is not raised; what the store raises while it is filled, is."""
        found = await self._store.path_infos.get(output_hash)
        return found if found is not None else await self._searches.result(output_hash)

    async def get_many(self, output_hashes: Sequence[bytes]) -> dict[bytes, PathInfo]:
        """As `PathInfoService.get_many`: what the store lacks is fetched."""
        found = await self._store.path_infos.get_many(output_hashes)
        lacking = [each for each in dict.fromkeys(output_hashes) if each not in found]
        fetched = await each_at_once(self.get, lacking)
        return found | {each.store_path.output_hash: each for each in fetched if each is not None}

    async def existing(self, output_hashes: Sequence[bytes]) -> dict[bytes, StorePath]:
        """The paths that the store has, or that an upstream says, credibly, that it has. Nothing is fetched."""
        found = await self._store.path_infos.existing(output_hashes)
        lacking = [each for each in dict.fromkeys(output_hashes) if each not in found]
        offered = await each_at_once(self._offered, lacking, _ASKED_AT_ONCE)
        return found | {path.output_hash: path for path in offered if path is not None}

    async def put(self, path_info: PathInfo, trust: Trust = NOBODY) -> PathInfo:
        self._substituters.forget(path_info.store_path.output_hash)
        return await self._store.path_infos.put(path_info, trust)

    def list(self) -> AsyncIterator[PathInfo]:
        return self._store.path_infos.list()

    async def close(self) -> None:
        """End what is running, and the upstreams' connections."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._substituters.close()

    def _begin(self, output_hash: bytes) -> asyncio.Task[PathInfo | None]:
        task = asyncio.create_task(self._search(output_hash))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _search(self, output_hash: bytes) -> PathInfo | None:
        exhausted: ExhaustedError | None = None
        for substituter in await self._substituters.in_order():
            narinfo = await substituter.narinfo(output_hash, self._store.store_dir)
            if narinfo is None:
                continue
            async with self._holding(output_hash), substituter.room:
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
                    notes.note("substituted", str(path_info.store_path))
                    notes.note("upstream", substituter.name)
                    return await self._kept(path_info)
        if exhausted is not None:
            raise exhausted
        return None

    async def _kept(self, path_info: PathInfo) -> PathInfo | None:
        try:
            return await self._store.path_infos.put(path_info)
        except ConflictError:  # somebody has put another meanwhile, which counts: the store is asked first
            return await self._store.path_infos.get(path_info.store_path.output_hash)

    async def _offered(self, output_hash: bytes) -> StorePath | None:
        for substituter in await self._substituters.in_order():
            narinfo = await substituter.narinfo(output_hash, self._store.store_dir)
            if narinfo is not None:
                return narinfo.store_path
        return None

    def _holding(self, output_hash: bytes) -> AbstractAsyncContextManager[None]:
        return self._lock.holding(output_hash) if self._lock is not None else nullcontext()
