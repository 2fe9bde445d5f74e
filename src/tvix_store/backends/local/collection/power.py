"""LocalCollection: the ContentCollection of a local store."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import TypeVar

from tvix_store.backends.local.collection.collector import Collector
from tvix_store.backends.local.collection.fitting import Fitting, bytes_on_disk
from tvix_store.backends.local.collection.leftovers import drop_leftovers
from tvix_store.backends.local.collection.rewriting import Rewriting
from tvix_store.backends.local.collection.watch import StoppedError, Watch
from tvix_store.backends.local.collection_lock import collecting, have_collected
from tvix_store.backends.local.disk import disk_errors
from tvix_store.backends.local.engine import Engine
from tvix_store.errors import DeniedError, InvalidError, UnavailableError
from tvix_store.services.collection import Collected, Progress, Room

T = TypeVar("T")
_PACKED = 0.9
"""Share of the packs that counts at least. What is dead beside it is not worth to be rewritten."""


class LocalCollection:
    """Collects in a thread of its own. `clock` tells the seconds since 1970."""

    def __init__(self, engine: Engine, clock: Callable[[], float] = time.time) -> None:
        self._engine = engine
        self._clock = clock

    async def collect(self, grace: float, *, progress: Progress | None = None) -> Collected:
        if self._engine.refusal is not None:
            raise DeniedError(self._engine.refusal)
        watch = Watch(progress)
        return await _in_thread(watch, lambda: self._collect(grace, watch))

    async def expected(self, without: Collection[bytes] = (), *, progress: Progress | None = None) -> Collected:
        watch = Watch(progress)
        return await _in_thread(watch, Collector(self._engine, 0, watch, self._clock, without).look)

    async def fitting(self, output_hashes: Sequence[bytes], size: int, *, progress: Progress | None = None) -> int:
        watch = Watch(progress)
        index = self._engine.index.file_size()
        if size <= index:
            raise InvalidError(f"{size} bytes are fewer than the index of the store takes ({index}); no path would be left")
        most = int((size - index) * _PACKED)
        return await _in_thread(watch, lambda: Fitting(self._engine, watch).count(output_hashes, most))

    async def room(self) -> Room:
        status = os.statvfs(self._engine.directory)
        return Room(bytes_on_disk(self._engine), status.f_bavail * status.f_frsize)

    def _collect(self, grace: float, watch: Watch) -> Collected:
        engine = self._engine
        with disk_errors(engine.directory), collecting(engine.directory) as is_alone:
            if not is_alone:
                raise UnavailableError(f"another process collects {engine.directory}, or makes a backup of it; try again later")
            try:
                collector = Collector(engine, grace, watch, self._clock)
                done = collector.run()
                if done.ready_at and done.ready_at <= self._clock():  # there is no grace
                    first, done = done, collector.run()
                    done = replace(done, condemned=first.condemned, dropped=first.dropped + done.dropped)
                if done.dropped.count:
                    drop_leftovers(engine, watch)
                rewriting = Rewriting(engine, watch)
                freed = rewriting.run()
                done = replace(done, freed=freed, held=rewriting.held)
                have_collected(engine.directory)
                return done
            except StoppedError as error:
                raise UnavailableError("the collection was stopped; the next one goes on with it") from error


async def _in_thread(watch: Watch, call: Callable[[], T]) -> T:
    """Run what may take minutes. Where nobody waits for it any more, it is stopped, and has ended."""
    running = asyncio.ensure_future(asyncio.to_thread(call))
    try:
        return await asyncio.shield(running)
    finally:
        if not running.done():
            watch.stop()
            await asyncio.gather(running, return_exceptions=True)
