"""QueuePusher: it pushes what waits in a queue, and tries again for as long as it takes.

Two kinds of errors have their own pauses. An error of the whole push, such as a cache that does not answer, makes all paths for
this cache wait. An error of one path makes this path wait. Pauses are in memory, so a new process tries at once.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

from tvix_store.errors import DeniedError, UnavailableError
from tvix_store.model.address import without_secrets
from tvix_store.operations.paths.push_queue import Entry, PushQueue, Target, number_of_paths
from tvix_store.operations.paths.pushed import Pushed, PushStatus

Push = Callable[[Target, Sequence[str], Callable[[], None]], AsyncGenerator[Pushed, None]]
"""It pushes paths with their closures, and yields the outcome of each path of these. It calls the function when bytes move."""
IsGone = Callable[[Target, str], bool]
"""Whether Nix's store does not have a path any more."""

_AT_ONCE = 1000
"""Paths of one push. What a push has done before it fails is known to the cache at the next one."""
_SHOWN = 100
"""Paths whose errors the state tells."""
_ENOUGH = 3
"""Pushes of one path that are refused before the cache is to blame, and not these paths."""
_DISK_PAUSE = 10.0
_DONE = (PushStatus.COPIED, PushStatus.KNOWN, PushStatus.SKIPPED)


@dataclass(frozen=True, slots=True)
class Pauses:
    """Seconds. A pause doubles with every error, up to the most.

    look: Between two looks at the queue.
    stalled: After which a push in which nothing moves is given up. A connection may be lost without a word.
    cache: After the first error of a whole push.
    path: After the first error of a path.
    """

    look: float = 0.5
    stalled: float = 900.0
    cache: float = 1.0
    most_cache: float = 300.0
    path: float = 10.0
    most_path: float = 3600.0


@dataclass(slots=True)
class _Trouble:
    """Errors in a row."""

    error: str = ""
    tries: int = 0
    next_try: float = 0.0
    """By the clock that is never set."""

    def add(self, error: str, first: float, most: float) -> float:
        """Note one more error; the pause after it."""
        pause = min(first * 2.0 ** min(self.tries, 30), most)
        self.error, self.tries, self.next_try = error, self.tries + 1, time.monotonic() + pause
        return pause


@dataclass(slots=True)
class _Cache:
    """What is known of a target. `at_once` shrinks while a push is refused as a whole, until the path that is to blame is alone."""

    trouble: _Trouble = field(default_factory=_Trouble)
    paths: dict[str, _Trouble] = field(default_factory=dict)
    at_once: int = _AT_ONCE
    alone: int = 0
    """Pushes of one path in a row that were refused as a whole."""


class QueuePusher:
    """Takes paths out of `queue`, of which the caller has the lock. `say` gets a line about each thing that happens.

    An entry with an error that is older than `give_up_after` seconds is set aside.
    """

    def __init__(
        self,
        queue: PushQueue,
        push: Push,
        is_gone: IsGone,
        say: Callable[[str], None],
        *,
        give_up_after: float | None = None,
        pauses: Pauses | None = None,
    ) -> None:
        self._queue = queue
        self._push = push
        self._is_gone = is_gone
        self._say = say
        self._give_up_after = give_up_after
        self._pauses = pauses or Pauses()
        self._entries: dict[str, Entry] = {}
        self._caches: dict[Target, _Cache] = {}

    async def run(self, linger: float | None = None) -> None:
        """Push until the queue has been empty for `linger` seconds; None: until the caller cancels this."""
        running: dict[Target, asyncio.Task[None]] = {}
        empty_since = time.monotonic()
        try:
            while True:
                if await self._turn(running):
                    empty_since = time.monotonic()
                elif linger is not None and time.monotonic() - empty_since >= linger:
                    return
        finally:
            for task in running.values():
                task.cancel()
            await asyncio.gather(*running.values(), return_exceptions=True)

    async def _turn(self, running: dict[Target, asyncio.Task[None]]) -> bool:
        """Look at the queue, begin pushes that are due, and wait a moment. Whether anything waits, or is pushed."""
        try:
            self._look()
            for target in {entry.target for entry in self._entries.values()} - running.keys():
                if paths := self._due(target):
                    running[target] = asyncio.create_task(self._round(target, paths))
            busy = bool(self._entries or running)
            if running:
                await asyncio.wait(running.values(), timeout=self._pauses.look, return_when=asyncio.FIRST_COMPLETED)
            else:
                await asyncio.sleep(self._pauses.look)
            for target in [target for target, task in running.items() if task.done()]:
                running.pop(target).result()
        except OSError as error:
            # Such as a full disk. What was pushed and could not be taken out is known to the cache at the next try.
            self._say(f"cannot use the queue: {error}")
            await asyncio.sleep(_DISK_PAUSE)
            return True
        return busy

    def _look(self) -> None:
        """See what waits now."""
        names = self._queue.names()
        self._entries = {name: entry for name in names if (entry := self._entries.get(name) or self._queue.get(name))}
        if self._queue.merge(self._entries):
            self._look()

    def _due(self, target: Target) -> list[str]:
        """The paths to push next, the oldest first."""
        now = time.monotonic()
        cache = self._caches.setdefault(target, _Cache())
        if cache.trouble.next_try > now:
            return []
        waiting = self._paths(target)
        cache.paths = {path: trouble for path, trouble in cache.paths.items() if path in waiting}
        due = [path for path in waiting if path not in cache.paths or cache.paths[path].next_try <= now]
        return due[: cache.at_once]

    def _paths(self, target: Target) -> dict[str, None]:
        """All paths that wait for a target, each once."""
        return {path: None for entry in self._entries.values() if entry.target == target for path in entry.paths}

    async def _round(self, target: Target, paths: Sequence[str]) -> None:
        """Push some paths once."""
        cache = self._caches[target]
        try:
            outcomes = await self._pushed(target, paths)
        except Exception as error:  # noqa: BLE001 - whatever it is, the other targets go on, and this one is tried again
            self._failed(target, paths, error)
        else:
            if cache.trouble.tries:
                self._say(f"{_shown(target)}: the pushes go on")
            cache.trouble, cache.at_once, cache.alone = _Trouble(), min(cache.at_once * 2, _AT_ONCE), 0
            if copied := sum(each.status is PushStatus.COPIED for each in outcomes.values()):
                self._say(f"{_shown(target)}: pushed {number_of_paths(copied)}")
            self._settle(target, {path: _error_of(outcomes.get(path)) for path in paths})
        self._give_up(target)
        self._write_state()

    async def _pushed(self, target: Target, paths: Sequence[str]) -> dict[str, Pushed]:
        """The outcomes of a push, by path.

        Raises:
            UnavailableError: nothing has moved for too long.
            Exception: as the push.
        """
        clock = asyncio.get_running_loop().time
        outcomes: dict[str, Pushed] = {}
        try:
            async with asyncio.timeout(self._pauses.stalled) as limit:

                def moved() -> None:
                    limit.reschedule(clock() + self._pauses.stalled)

                async with aclosing(self._push(target, paths, moved)) as pushed:
                    async for each in pushed:
                        moved()
                        outcomes[each.path] = each
        except TimeoutError:
            raise UnavailableError(f"nothing has moved for {self._pauses.stalled:g} s") from None
        return outcomes

    def _failed(self, target: Target, paths: Sequence[str], error: Exception) -> None:
        """A push has failed as a whole: because of the cache, or because of one path, which is then looked for by halves."""
        cache = self._caches[target]
        text = str(error) or type(error).__name__
        if not isinstance(error, UnavailableError | DeniedError):
            cache.at_once = max(1, len(paths) // 2)
            if len(paths) > 1:
                return
            self._settle(target, dict.fromkeys(paths, text))
            cache.alone += 1
            if cache.alone < _ENOUGH:
                return
        known = cache.trouble.error == text
        pause = cache.trouble.add(text, self._pauses.cache, self._pauses.most_cache)
        if not known:
            self._say(f"{_shown(target)}: {text}; the next try is in {pause:g} s")

    def _settle(self, target: Target, errors: Mapping[str, str]) -> None:
        """Take out what was pushed or is gone, and note the error of each other path."""
        cache = self._caches[target]
        over = set()
        for path, error in errors.items():
            if not error:
                over.add(path)
            elif self._is_gone(target, path):
                over.add(path)
                self._say(f"{path} was not pushed: Nix has deleted it")
            else:
                trouble = cache.paths.setdefault(path, _Trouble())
                if trouble.error != error:
                    self._say(f"{_shown(target)}: {path}: {error}")
                trouble.add(error, self._pauses.path, self._pauses.most_path)
        self._take_out(target, over)

    def _take_out(self, target: Target, over: set[str]) -> None:
        for name, entry in list(self._entries.items()):
            if entry.target == target and not over.isdisjoint(entry.paths):
                left = tuple(path for path in entry.paths if path not in over)
                self._queue.replace([name], [Entry(target, left, entry.since)] if left else [])
                del self._entries[name]

    def _give_up(self, target: Target) -> None:
        """Set aside what has failed for too long."""
        if self._give_up_after is None:
            return
        cache = self._caches[target]
        for entry in list(self._entries.values()):
            if entry.target != target or time.time() - entry.since < self._give_up_after:
                continue
            errors = {path: trouble.error for path in entry.paths if (trouble := cache.paths.get(path, cache.trouble)).tries}
            for error in set(errors.values()):
                paths = tuple(path for path in errors if errors[path] == error)
                self._queue.set_aside(Entry(target, paths, entry.since, error))
                self._say(f"{_shown(target)}: gave up on {number_of_paths(len(paths))}: {error}")
            self._take_out(target, set(errors))

    def _write_state(self) -> None:
        """Say what went wrong, for those who ask for the state of the queue."""
        errors = [(path, cache_path.error) for cache in self._caches.values() for path, cache_path in cache.paths.items()]
        self._queue.write_state(
            {
                "caches": [
                    {
                        "to": target.address,
                        "nixStore": target.nix_store,
                        "error": cache.trouble.error,
                        "tries": cache.trouble.tries,
                        "nextTry": cache.trouble.next_try - time.monotonic() + time.time(),
                    }
                    for target, cache in self._caches.items()
                    if cache.trouble.tries
                ],
                "paths": [{"path": path, "error": error} for path, error in errors[:_SHOWN]],
            }
        )


def _error_of(outcome: Pushed | None) -> str:
    """Why a path is not at its target; empty where it is."""
    if outcome is None:
        return "the push does not say what became of it"
    if outcome.status in _DONE:
        return ""
    return str(outcome.error or outcome.reason or f"it was {outcome.status.value}")


def _shown(target: Target) -> str:
    return without_secrets(target.address)
