"""Retention: a named cache lets go of paths that nobody has used for long, and of the content that it holds for them alone.

A path goes when neither it nor a path that refers to it was used for the time that is kept. Content goes a day later, in two steps.
First it is marked. It then counts as missing for whoever asks what to send, and can still be read. So a push that relies on an
answer of the last day succeeds. What is sent again, or belongs to a path again, is held as before. What is still marked a day later
is held no more.

What a cache holds is a note, and the content stays in the store. A path may come just as its content goes. Then the cache holds
the content again, since it was sent to it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

from tvix_store.concurrency.cooperative import Yielder
from tvix_store.errors import CorruptError, StoreError, UnsupportedError
from tvix_store.layers.holding.held import Held, Kind
from tvix_store.layers.holding.nars import nar_key
from tvix_store.layers.holding.quota import Quota
from tvix_store.layers.uses import UsedPathInfos, Uses
from tvix_store.model.digest import Digest
from tvix_store.operations.collection.hours import Hours
from tvix_store.operations.collection.last_uses import hour_in
from tvix_store.operations.collection.unused import remove_unused
from tvix_store.operations.trees.reached import Reached
from tvix_store.services.batches import gathered, parts
from tvix_store.services.record_kinds import FILE, KINDS, LINK, PLAN
from tvix_store.services.records import RecordService
from tvix_store.services.removal import HOUR, write_hour
from tvix_store.services.store import Store
from tvix_store.telemetry import meters

_BEGIN, _AGAIN = 10.0, HOUR
"""Seconds from the opening of a cache to the first look whether a run is due, and from one look to the next."""
_BETWEEN = 24
"""Hours between two runs."""
_MARKED = 24
"""Hours for which marked content is held at least."""
_PERIODS = 50
"""In how many periods the time that is kept is divided: a path's use is noted once in each."""
_DIGEST_SIZE = 32
_AT_ONCE = 500
"""Records that are looked at, and changed, together: some 3 ms."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RetentionTerms:
    """How a cache lets go.

    cache: Its name, for messages.
    hours: For so many hours a path is kept after its last use.
    alone: A context in which no other process looks after the cache; it tells whether that is so.
    clock: The seconds since 1970.
    """

    cache: str
    hours: int
    alone: Callable[[], AbstractContextManager[bool]]
    clock: Callable[[], float] = time.time


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run came to: how many paths went, how many digests are not held any more, and the bytes that the cache holds."""

    paths: int
    digests: int
    size: int


class Retention:
    """Lets a cache go of what is unused. `content` is the store, and `own` that of the cache's paths and records."""

    def __init__(self, content: Store, own: Store, held: Held, quota: Quota, terms: RetentionTerms) -> None:
        if own.records is None or own.removal is None:
            raise UnsupportedError(f"cache {terms.cache} cannot let go of paths")
        self._content = content
        self._own = own
        self._records: RecordService = own.records
        self._held = held
        self._quota = quota
        self._terms = terms
        self._hours = Hours(own.records, terms.clock)
        self._period = max(terms.hours // _PERIODS, 1)
        self._uses = Uses(own.records, self._hours, self._period)
        self._yielder = Yielder()

    def begun(self) -> Store:
        """`own`, whose uses are noted, and which lets go of what is unused until it is closed."""
        own = self._own
        path_infos = UsedPathInfos(own.path_infos, self._uses)
        used = own.with_services(path_infos=path_infos, keep=("named_paths", "arrivals", "removal", "statistics"))
        serving = asyncio.create_task(self.serve())

        async def close() -> None:
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)
            await self._uses.close()
            await own.close()

        return replace(used, close=close)

    async def serve(self) -> None:
        """Look every hour whether a run is due, until it is cancelled."""
        wait = _BEGIN
        while True:
            await asyncio.sleep(wait)
            wait = _AGAIN
            try:
                await self._look()
            except StoreError as error:
                _log.warning("cache %s does not let go of what is unused: %s", self._terms.cache, error)
            except Exception:  # noqa: BLE001 - a bug, which must not end it
                _log.exception("cache %s does not let go of what is unused", self._terms.cache)

    async def _look(self) -> None:
        with self._terms.alone() as is_alone:
            if is_alone:
                await self._hours.look()
                if await self._hours.since_last_run() >= _BETWEEN:
                    done = await self.run()
                    line = "cache %s: %d paths not used for %d hours are gone, and %d pieces of content; it holds %d bytes"
                    _log.info(line, self._terms.cache, done.paths, self._terms.hours, done.digests, done.size)
        await self._uses.look()

    async def run(self) -> Outcome:
        """Let go of what is unused. It may be stopped at any time, and goes on with the next run.

        Raises:
            StoreError: the store cannot be read or written.
        """
        now = await self._hours.now()
        paths = len(await remove_unused(self._own, now=now, keep_for=self._terms.hours, noted_every=self._period))
        reached = Reached(self._content.blobs, self._content.directories)
        roots = await self._reach(reached)
        if reached.holes:
            _log.warning("cache %s lets go of no content: %d parts of its paths are missing", self._terms.cache, reached.holes)
        idle = _Idle(self._content)
        gone = 0
        for kind, needed in ((Kind.NAR, roots), (Kind.BLOB, reached.blobs), (Kind.DIRECTORY, reached.directories)):
            gone += await self._let_go(kind, needed, idle, marks=not reached.holes)
        await self._hold_late(roots)
        await self._drop_links(roots)
        size = reached.size + idle.size
        await self._quota.correct(size)
        await self._hours.have_run()
        meters.RETENTION_RUNS.of().add()
        meters.PATHS_REMOVED.of().add(paths)
        return Outcome(paths, gone, size)

    async def _reach(self, reached: Reached) -> set[bytes]:
        """Reach all that the cache needs. The keys of the roots of its paths."""
        roots: set[bytes] = set()
        async for path_info in self._own.path_infos.list():
            roots.add(nar_key(path_info.node).raw)
            await reached.add(path_info.node)
        for kind in KINDS:
            if not kind.follows:
                async for _, value in self._records.list(kind.prefix):
                    try:
                        content = kind.content_of(value)
                    except CorruptError:
                        reached.holes += 1
                        continue
                    if isinstance(content, Digest):
                        await reached.add_blob(content)
                    elif content is not None:
                        await reached.add(content)
        async for key, value in self._records.list(PLAN.prefix):
            if key[len(PLAN.prefix) :] in roots and len(value) == _DIGEST_SIZE:
                await reached.add_blob(Digest(value))
            await self._yielder.step()
        return roots

    async def _let_go(self, kind: Kind, needed: Collection[bytes], idle: _Idle, *, marks: bool) -> int:
        """Let go of digests that were marked a day ago, and mark those that are not `needed`. How many digests went.

        Without `marks`, none is marked and none goes. `idle` gets the digests that are held and not needed.
        """
        now = await self._hours.now()
        gone = 0
        async for some in gathered(self._records.list(kind.prefix), _AT_ONCE):
            changes: dict[bytes, tuple[bytes, bytes | None]] = {}
            over: dict[bytes, tuple[bytes, bytes | None]] = {}
            for key, value in some:
                raw = key[len(kind.prefix) :]
                marked = hour_in(value, now) if value else None
                if len(raw) != _DIGEST_SIZE:  # not one of ours
                    over[key] = (value, None)
                elif raw in needed:
                    if value:
                        changes[key] = (value, b"")
                elif marks and marked is not None and now - marked > _MARKED:
                    over[key] = (value, None)
                else:
                    await idle.add(kind, Digest(raw))
                    if marks and marked is None:
                        changes[key] = (value, write_hour(now))
            # Only where the record is as it was: somebody may just have sent this again.
            await self._records.exchange(changes)
            gone += await self._records.exchange(over)
            await asyncio.sleep(0)
        await self._hold(kind, needed)
        return gone

    async def _hold(self, kind: Kind, needed: Collection[bytes]) -> None:
        """Hold what is needed, as far as that is not so."""
        for part in parts(list(needed), _AT_ONCE):
            lacking = await self._held.lacking(kind, [Digest(raw) for raw in part], to_send=True)
            await self._held.put(kind, list(lacking))
            await asyncio.sleep(0)

    async def _hold_late(self, roots: Collection[bytes]) -> None:
        """Hold what the paths need that came meanwhile."""
        late = Reached(self._content.blobs, self._content.directories)
        keys: set[bytes] = set()
        async for path_info in self._own.path_infos.list():
            key = nar_key(path_info.node).raw
            if key not in roots:
                keys.add(key)
                await late.add(path_info.node)
            await self._yielder.step()
        for kind, needed in ((Kind.BLOB, late.blobs), (Kind.DIRECTORY, late.directories), (Kind.NAR, keys)):
            await self._hold(kind, needed)

    async def _drop_links(self, roots: Collection[bytes]) -> None:
        """Drop what is known of NARs that the cache does not hold any more."""
        async for some in gathered(self._records.list(LINK.prefix), _AT_ONCE):
            over = [key for key, value in some if not await self._knows_nar(_root_of_link(value), roots)]
            await self._delete([*over, *(FILE.prefix + key[len(LINK.prefix) :] for key in over)])
            await asyncio.sleep(0)
        async for some in gathered(self._records.list(PLAN.prefix), _AT_ONCE):
            await self._delete([key for key, _ in some if not await self._knows_nar(key[len(PLAN.prefix) :], roots)])
            await asyncio.sleep(0)

    async def _knows_nar(self, root: bytes, roots: Collection[bytes]) -> bool:
        return root in roots or (len(root) == _DIGEST_SIZE and await self._held.has(Kind.NAR, Digest(root)))

    async def _delete(self, keys: list[bytes]) -> None:
        for part in parts(keys, _AT_ONCE):
            await self._records.delete(part)


class _Idle:
    """What a cache holds and does not need, and its `size`: chunks of blobs that are held as well do not count once more."""

    def __init__(self, content: Store) -> None:
        self._content = content
        self._sizes: dict[bytes, int] = {}
        self._chunks: set[bytes] = set()
        self._directories = 0

    async def add(self, kind: Kind, digest: Digest) -> None:
        if kind is Kind.BLOB:
            stat = await self._content.blobs.stat(digest, chunks=True)
            if stat is not None:
                self._sizes[digest.raw] = stat.size or 0
                self._chunks.update(chunk.digest.raw for chunk in stat.chunks)
        elif kind is Kind.DIRECTORY:
            directory = await self._content.directories.get(digest)
            self._directories += 0 if directory is None else len(directory.encoded)

    @property
    def size(self) -> int:
        """Bytes of files and directories."""
        return self._directories + sum(size for raw, size in self._sizes.items() if raw not in self._chunks)


def _root_of_link(value: bytes) -> bytes:
    """What stands for the root node in a link, as in `Held`; nothing where the link is damaged."""
    try:
        node = LINK.content_of(value)
    except CorruptError:
        return b""
    return b"" if node is None or isinstance(node, Digest) else nar_key(node).raw
