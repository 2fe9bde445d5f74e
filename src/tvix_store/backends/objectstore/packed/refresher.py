"""Refresher: brings a view up to date, by a listing of the commits that are new, and their footers."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from tvix_store.backends.objectstore.bucket import Bucket
from tvix_store.backends.objectstore.packed.merged_index import MergedIndexes
from tvix_store.backends.objectstore.packed.pack import COMMITS, LARGEST_FOOTER, Footer, footer_size
from tvix_store.backends.objectstore.packed.view import Commit, View
from tvix_store.errors import CorruptError, UnavailableError, of_disk

MARGIN = 15 * 60 * 1000
"""Milliseconds before the newest known commit, from which on commits are listed: a slow writer's may come so much later."""
FULL = 3600.0
"""Seconds after which all commits are listed again, whatever their time, and
SOON: seconds after which a new process does so first."""
SOON = 60.0
_BURST = 20
"""Refreshes that may follow each other at once, for content that is not there; then
_PAUSE: seconds for each."""
_PAUSE = 1.0
_TURN = 10.0
"""Seconds to wait for another process that refreshes the view, and
_FIRST_LOOK, _LONGEST_LOOK: seconds between two looks whether it is done."""
_FIRST_LOOK, _LONGEST_LOOK = 0.005, 0.05
_AT_ONCE = 16
"""Footers that are read at a time, and
_ADDED: bytes of them that are added to the view in one transaction."""
_ADDED = 8 << 20

_log = logging.getLogger(__name__)


class Refresher:
    """Refreshes one view. Callers that want it at once share a refresh, those of other processes too."""

    def __init__(self, bucket: Bucket, view: View) -> None:
        self._bucket = bucket
        self._view = view
        self._indexes = MergedIndexes(bucket)
        self._running: asyncio.Task[None] | None = None
        self._waiting: asyncio.Task[None] | None = None
        """The refresh that begins after the one that is running. It sees what was stored before now."""
        self._all_due = time.monotonic() + SOON
        self._tokens = float(_BURST)
        self._counted = time.monotonic()

    async def refresh(self, age: float = 0.0) -> None:
        """Let the view know all commits that were acknowledged up to `age` seconds ago.

        Raises:
            UnavailableError, DeniedError: the object store does not answer.
        """
        if age and await asyncio.to_thread(lambda: self._view.age) <= age:
            return
        if self._running is None:
            self._running = self._begin(None)
            task = self._running
        else:
            if self._waiting is None:
                self._waiting = self._begin(self._running)
            task = self._waiting
        await asyncio.shield(task)

    async def close(self) -> None:
        for task in (self._waiting, self._running):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    def _begin(self, after: asyncio.Task[None] | None) -> asyncio.Task[None]:
        async def run() -> None:
            if after is not None:
                await asyncio.wait((after,))
                self._running, self._waiting = task, None
            try:
                await self._take_turn()
                await self._refresh()
            finally:
                if self._running is task:
                    self._running = None

        task = asyncio.create_task(run())
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        return task

    async def _take_turn(self) -> None:
        """Wait, where there were many refreshes: asking for what is not there must not make a listing each."""
        now = time.monotonic()
        self._tokens = min(_BURST, self._tokens + (now - self._counted) / _PAUSE)
        self._counted = now
        self._tokens -= 1
        if self._tokens < 0:
            await asyncio.sleep(-self._tokens * _PAUSE)

    async def _refresh(self) -> None:
        wanted = time.monotonic()
        async with self._alone():
            if await asyncio.to_thread(lambda: self._view.age) < time.monotonic() - wanted:
                return  # another process did it while this one waited
            began = time.monotonic()
            # Clocks differ. What is listed begins before the newest commit both by its key and by the object store's clock.
            newest = listed_to = await asyncio.to_thread(lambda: self._view.listed_to)
            after = ""
            if listed_to and began < self._all_due:
                after = f"{COMMITS}/{max(listed_to - MARGIN, 0):012x}"
            sizes: dict[str, int] = {}
            async for page in self._bucket.list(COMMITS, after):
                for listed in page:
                    if footer_size(listed.key) is not None:
                        sizes[listed.key] = listed.size
                        newest = max(newest, int(listed.written * 1000))
            if not after:
                self._all_due = began + FULL
            new = await asyncio.to_thread(self._view.unknown_commits, sizes)
            if new:
                await self._learn({key: sizes[key] for key in new})
            await asyncio.to_thread(self._view.note_listing, began, newest)

    async def _learn(self, sizes: dict[str, int]) -> None:
        """Take new commits into the view, of these sizes."""
        left = dict(sizes)
        async for some in self._indexes.read(left):
            await asyncio.to_thread(self._view.add, some)
        merged: list[Commit] = []
        async for commits in self._footers(left):
            await asyncio.to_thread(self._view.add, commits)
            merged += commits
            if sum(footer_size(commit.key) or 0 for commit in merged) >= _ADDED:
                await self._indexes.offer(merged)
                merged = []
        await self._indexes.offer(merged)

    async def _footers(self, sizes: dict[str, int]) -> AsyncIterator[Sequence[Commit]]:
        """The commits of these sizes, some at a time."""
        keys = sorted(sizes)
        some: list[str] = []
        size = 0
        for key in keys:
            some.append(key)
            size += footer_size(key) or 0
            if size >= _ADDED or len(some) == 16 * _AT_ONCE:
                yield await self._read(some, sizes)
                some, size = [], 0
        if some:
            yield await self._read(some, sizes)

    async def _read(self, keys: Sequence[str], sizes: dict[str, int]) -> list[Commit]:
        turns = asyncio.Semaphore(_AT_ONCE)

        async def read(key: str) -> Commit | None:
            for is_last in (False, True):
                try:
                    async with turns:
                        return await self._commit(key, sizes[key])
                except CorruptError as error:  # once more: what is left out stays out
                    if is_last:
                        _log.error("a commit is left out: %s", error)
            return Commit(key, Footer([]))

        return [commit for commit in await asyncio.gather(*map(read, keys)) if commit is not None]

    async def _commit(self, key: str, size: int) -> Commit | None:
        """A commit, whose object has `size` bytes; None where it was deleted meanwhile."""
        footer = footer_size(key) or 0
        data: memoryview | None = memoryview(b"")
        if min(size, LARGEST_FOOTER) >= footer > 0:
            data = await self._bucket.get_range(key, size - footer, footer)
        if data is None:
            return None
        return Commit(key, await asyncio.to_thread(Footer.decode, data, f"{self._bucket.name}/{key}"))

    @asynccontextmanager
    async def _alone(self) -> AsyncIterator[None]:
        """Keep other processes from refreshing the same view meanwhile. One that takes too long may have been stopped.

        Two that refresh at once do no harm.
        """
        directory = self._view.directory
        try:
            directory.mkdir(parents=True, exist_ok=True)  # somebody may have deleted the view
            fd = os.open(directory / "refresh.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise of_disk(error, f"the view in {directory} cannot be used: {error.strerror}", UnavailableError) from None
        try:
            end, pause = time.monotonic() + _TURN, _FIRST_LOOK
            while not _is_locked(fd) and time.monotonic() < end:
                await asyncio.sleep(pause)  # no thread that waits in the kernel: it could not be called off
                pause = min(2 * pause, _LONGEST_LOOK)
            yield
        finally:
            os.close(fd)


def _is_locked(fd: int) -> bool:
    """Lock a file, if nobody else has; whether that is done."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
