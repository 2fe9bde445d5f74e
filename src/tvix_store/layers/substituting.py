"""SubstitutingPathInfos: paths that the store lacks come from upstream caches, once, and are kept. See docs/design/upstream.md."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, contextmanager, nullcontext
from functools import partial

from tvix_store.concurrency.each_at_once import each_at_once
from tvix_store.concurrency.single_flight import SingleFlight
from tvix_store.concurrency.window import Window
from tvix_store.errors import ConflictError, ExhaustedError, NotFoundError
from tvix_store.layers.asking_ahead import AskingAhead
from tvix_store.layers.fetch_lease import FetchLease
from tvix_store.layers.fetch_lock import FetchLock
from tvix_store.layers.substituter import Substituter
from tvix_store.layers.substituters import Substituters
from tvix_store.model import nixbase32
from tvix_store.model.narinfo import NarInfo
from tvix_store.model.path_info import PathInfo
from tvix_store.model.store_path import StorePath
from tvix_store.model.trust import NOBODY, Trust
from tvix_store.operations.nars.put_calculated import put_calculated
from tvix_store.services.foreign_paths import FetchBrokeOffError
from tvix_store.services.store import Store
from tvix_store.telemetry import notes

_ASKED_AT_ONCE = 64
"""Paths about which upstreams are asked at the same time."""
_SHOWN = 4 << 20
"""Bytes of a NAR that is fetched by which a client may be behind the fetch. A slower one gets the rest from the store."""


_NOTHING = Window(0)
_NOTHING.end()


class SubstitutingPathInfos:
    """A PathInfoService, and ForeignPaths, over a store and upstreams, which are asked in order of priority for what it lacks.

    `store` gets the content and the path infos; puts go to it unchanged, and `list` lists what it has. `lock` is one that all
    processes share that use the store; None where there is but one.
    """

    def __init__(self, store: Store, substituters: Substituters, lock: FetchLock | FetchLease | None = None) -> None:
        self._store = store
        self._substituters = substituters
        self._lock = lock
        self._searches = SingleFlight(self._begin)
        self._tasks: dict[asyncio.Task[PathInfo | None], Window] = {}
        """All searches that run, also those that nobody waits for any more and are about to end; and where their NARs are shown."""
        self._ahead = AskingAhead(self._ask_ahead)
        self.kept = store.path_infos.get

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
        return found | {narinfo.store_path.output_hash: narinfo.store_path for narinfo in offered if narinfo is not None}

    async def offered(self, output_hash: bytes, nar_sha256: bytes | None = None) -> NarInfo | None:
        """As `ForeignPaths.offered`."""
        narinfo = await self._offered(output_hash, nar_sha256)
        if narinfo is not None and nar_sha256 is None:
            self._ahead.begin(output_hash, (reference.output_hash for reference in narinfo.references))
        return narinfo

    async def _offered(self, output_hash: bytes, nar_sha256: bytes | None = None) -> NarInfo | None:
        for substituter in await self._substituters.in_order():
            narinfo = await substituter.narinfo(output_hash, self._store.store_dir)
            if narinfo is not None and nar_sha256 in (None, narinfo.nar.sha256):
                return narinfo
        return None

    async def _ask_ahead(self, output_hash: bytes) -> None:
        if await self.kept(output_hash) is None:
            await self._offered(output_hash)

    @contextmanager
    def fetch(self, output_hash: bytes, nar_sha256: bytes) -> Iterator[JoinedFetch]:
        """As `ForeignPaths.fetch`."""
        with self._searches.joined(output_hash, partial(self._begin, wanted=nar_sha256)) as task:
            yield JoinedFetch(task, self._tasks.get(task, _NOTHING), output_hash, nar_sha256)

    async def put(
        self, path_info: PathInfo, trust: Trust = NOBODY, *, requires: Collection[StorePath] = (), calculated: bool = False
    ) -> PathInfo:
        self._substituters.forget(path_info.store_path.output_hash)
        return await self._store.path_infos.put(path_info, trust, requires=requires, calculated=calculated)

    def list(self, after: bytes = b"") -> AsyncIterator[PathInfo]:
        return self._store.path_infos.list(after)

    async def close(self) -> None:
        """End what is running, and the upstreams' connections."""
        await self._ahead.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._substituters.close()

    def _begin(self, output_hash: bytes, wanted: bytes | None = None) -> asyncio.Task[PathInfo | None]:
        window = Window(_SHOWN)
        task = asyncio.create_task(self._search(output_hash, wanted, window))
        self._tasks[task] = window

        def forget(_: object) -> None:
            del self._tasks[task]
            window.end()

        task.add_done_callback(forget)
        return task

    async def _search(self, output_hash: bytes, wanted: bytes | None, window: Window) -> PathInfo | None:
        exhausted: ExhaustedError | None = None
        async with aclosing(self._offers(output_hash, wanted)) as offers:
            async for substituter, narinfo in offers:
                async with self._holding(output_hash), substituter.room:
                    found = await self._come_meanwhile(output_hash)
                    if found is not None:
                        return found
                    window.begin(narinfo.nar.sha256, narinfo.nar.size)
                    try:
                        path_info = await substituter.fetch(self._store, narinfo, window)
                    except ExhaustedError as error:
                        # Over a limit, which another cache's NAR may not be; or the disk is full, which the next will meet too.
                        exhausted = error
                        continue
                    if path_info is not None:
                        kept = await self._kept(path_info)
                        window.confirm()
                        notes.note("substituted", str(path_info.store_path))
                        notes.note("upstream", substituter.name)
                        return kept
        if exhausted is not None:
            raise exhausted
        return None

    async def _come_meanwhile(self, output_hash: bytes) -> PathInfo | None:
        """The path, if another process has fetched it while we waited, or a client has put it.

        A cache before the store may still believe that the path is not there. `existing` asks the store itself.
        """
        there = await self._store.path_infos.existing([output_hash])
        return await self._store.path_infos.get(output_hash) if there else None

    async def _offers(self, output_hash: bytes, wanted: bytes | None) -> AsyncGenerator[tuple[Substituter, NarInfo], None]:
        """The upstreams that have the path. First come those whose NAR has the SHA-256 that is `wanted`, if any is."""
        others: list[tuple[Substituter, NarInfo]] = []
        for substituter in await self._substituters.in_order():
            narinfo = await substituter.narinfo(output_hash, self._store.store_dir)
            if narinfo is not None and wanted in (None, narinfo.nar.sha256):
                yield substituter, narinfo
            elif narinfo is not None:
                others.append((substituter, narinfo))
        for other in others:
            yield other

    async def _kept(self, path_info: PathInfo) -> PathInfo | None:
        try:
            return await put_calculated(self._store, path_info)
        except ConflictError:  # somebody has put another meanwhile, which counts: the store is asked first
            return await self._store.path_infos.get(path_info.store_path.output_hash)

    def _holding(self, output_hash: bytes) -> AbstractAsyncContextManager[None]:
        return self._lock.holding(output_hash) if self._lock is not None else nullcontext()


class JoinedFetch:
    """A Fetch: a search for a path that runs in a task, and the window in which it shows the NAR."""

    def __init__(self, task: asyncio.Task[PathInfo | None], window: Window, output_hash: bytes, nar_sha256: bytes) -> None:
        self._task = task
        self._reader = window.reader(nar_sha256)
        self._output_hash = output_hash
        self._nar_sha256 = nar_sha256

    def beginning(self) -> AsyncGenerator[bytes, None]:
        """As `Fetch.beginning`."""
        return self._reader.pieces()

    async def result(self) -> PathInfo:
        """As `Fetch.result`."""
        path_info = await asyncio.shield(self._task)
        name = nixbase32.encode(self._output_hash)
        if not self._reader.was_right:
            raise FetchBrokeOffError(f"the NAR of {name} broke off, or was false")
        if path_info is None or path_info.nar.sha256 != self._nar_sha256:
            raise NotFoundError("this NAR of path", name)
        return path_info
