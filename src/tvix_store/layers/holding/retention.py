"""Retention: a named cache lets go of paths that nobody has used for long, and of the content that it holds for them alone.

A path goes when neither it nor a path that refers to it was used for the time that is kept. Content goes a day later, in two steps.
First it counts as missing for whoever asks what to send, and can still be read. So nobody relies on an answer that is older than a
day. What is sent again, or belongs to a path again, is held as before. What is still of no use a day later is held no more.

What a cache holds is a note, and the content stays in the store. So where a path came just as its content went, the cache holds
it again: what it has acknowledged was sent to it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

from tvix_store.concurrency.cooperative import Yielder
from tvix_store.errors import StoreError, UnsupportedError
from tvix_store.layers.holding.held import Held, Kind
from tvix_store.layers.holding.nars import nar_key
from tvix_store.layers.holding.quota import Quota
from tvix_store.layers.holding.uses import UsedPathInfos, Uses
from tvix_store.model.digest import Digest
from tvix_store.operations.trees.reached import Reached
from tvix_store.services.batches import gathered
from tvix_store.services.record_kinds import KINDS, RecordKind, kind_of
from tvix_store.services.records import RecordService
from tvix_store.services.removal import HOUR, USED, Removal, read_hour, used_records, write_hour
from tvix_store.services.store import Store
from tvix_store.telemetry import meters

_BEGIN, _AGAIN = 10.0, HOUR
"""Seconds from the opening of a cache to the first look whether a run is due, and from one look to the next."""
_BETWEEN = 24
"""Hours between two runs, and
_UNSENT: hours for which content that nobody uses can still be read and relied upon."""
_UNSENT = 24
_PAUSED = 72
"""Hours without a run from which on no path is removed: nobody could use the cache meanwhile, or a clock is wrong. The next run
removes paths again, after a day in which uses are noted."""
_LAST_RUN = b"retained:"
"""The key of the record that says when the last run was, as a use is noted."""
_PLAN, _LINK, _FILE = b"plan:", b"nar:", b"zstd:"
"""How the keys begin of what is known of NARs (see operations.nars)."""
_AT_ONCE = 5000
"""Records that are changed together."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run came to: how many paths went, how many digests are held no more, and the bytes that the cache holds now."""

    paths: int
    digests: int
    size: int


@dataclass(frozen=True, slots=True)
class KeepFor:
    """How long a path is kept after its last use: so many `hours`.

    `alone` is a context in which no other process looks after the cache; it tells whether that is so.
    """

    hours: int
    alone: Callable[[], AbstractContextManager[bool]]
    clock: Callable[[], float] = time.time


class Retention:
    """Keeps the paths of a cache for a while. `content` is the store, and `own` that of the cache's paths and records."""

    def __init__(self, content: Store, own: Store, held: Held, quota: Quota, keep_for: KeepFor) -> None:
        if own.records is None or own.removal is None:
            raise UnsupportedError(f"{own.name} cannot let go of paths")
        self._content = content
        self._own = own
        self._records: RecordService = own.records
        self._removal: Removal = own.removal
        self._held = held
        self._quota = quota
        self._keep_for = keep_for
        self._uses = Uses(own.records, keep_for.clock)
        self._yielder = Yielder()

    def begun(self) -> Store:
        """`own`, whose uses are noted, and which lets go of what is unused until it is closed."""
        own = self._own
        used = own.with_services(
            path_infos=UsedPathInfos(own.path_infos, self._uses), keep=("named_paths", "removal", "statistics")
        )
        serving = asyncio.create_task(self.serve())

        async def close() -> None:
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)
            await self._uses.close()
            await own.close()

        return replace(used, close=close)

    async def serve(self) -> None:
        """Run once a day, until it is cancelled."""
        wait = _BEGIN
        while True:
            await asyncio.sleep(wait)
            wait = _AGAIN
            try:
                await self._run_if_due()
            except StoreError as error:
                _log.warning("%s: what is unused is not let go of: %s", self._own.name, error)

    async def _run_if_due(self) -> None:
        with self._keep_for.alone() as is_alone:
            if is_alone and abs(await self._since_last_run()) >= _BETWEEN:  # a clock may go back
                done = await self.run()
                line = "%s: %d paths that were not used for %d hours are gone, and %d pieces of content; it holds %d bytes"
                _log.info(line, self._own.name, done.paths, self._keep_for.hours, done.digests, done.size)

    async def run(self) -> Outcome:
        """Let go of what is unused. May be stopped at any time, and goes on with the next run.

        Raises:
            StoreError: the store cannot be read or written.
        """
        held_before = await self._quota.used()
        paths = await self._remove_paths()
        reached = Reached(self._content.blobs, self._content.directories)
        roots = await self._reach(reached)
        unsent, gone = 0, 0
        for kind, needed in ((Kind.NAR, roots), (Kind.BLOB, reached.blobs), (Kind.DIRECTORY, reached.directories)):
            size, count = await self._let_go(kind, needed)
            unsent += size
            gone += count
        await self._hold_late(roots)
        await self._drop_links(roots)
        size = reached.size + unsent
        await self._quota.correct(size - held_before)
        await self._records.put({_LAST_RUN: write_hour(self._uses.hour())})
        meters.RETENTION_RUNS.of().add()
        meters.PATHS_REMOVED.of().add(paths)
        return Outcome(paths, gone, size)

    async def _since_last_run(self) -> int:
        """Hours; those since 1970, where there was none."""
        last = await self._records.get(_LAST_RUN)
        return self._uses.hour() - (0 if last is None else read_hour(last))

    async def _remove_paths(self) -> int:
        """Remove the paths that nobody has used; how many."""
        now = self._uses.hour()
        since = now - self._keep_for.hours
        used = {key[len(USED) :]: read_hour(value) async for key, value in self._records.list(USED)}
        unused: list[bytes] = []
        new: dict[bytes, int] = {}
        async for path_info in self._own.path_infos.list():
            output_hash = path_info.store_path.output_hash
            hour = used.get(output_hash)
            if hour is None:  # from before there was a retention: its time begins now
                new[output_hash] = now
            elif hour < since:
                unused.append(output_hash)
            await self._yielder.step()
        await self._records.put(used_records(new), durable=False)
        if abs(await self._since_last_run()) >= _PAUSED:
            return 0
        return len(await self._removal.remove(unused, unused_since=since))

    async def _reach(self, reached: Reached) -> set[bytes]:
        """Reach all that the cache needs. The keys of the roots of its paths."""
        roots: set[bytes] = set()
        async for path_info in self._own.path_infos.list():
            roots.add(nar_key(path_info.node).raw)
            await reached.add(path_info.node)
        for kind in KINDS:
            if not kind.follows:
                await self._reach_from(reached, kind)
        async for key, value in self._records.list(_PLAN):
            if key[len(_PLAN) :] in roots:
                await reached.add_blob(Digest(value))
        return roots

    async def _reach_from(self, reached: Reached, kind: RecordKind) -> None:
        """Reach what records of a kind refer to."""
        async for _, value in self._records.list(kind.prefix):
            content = kind.content_of(value)
            if isinstance(content, Digest):
                await reached.add_blob(content)
            elif content is not None:
                await reached.add(content)

    async def _let_go(self, kind: Kind, needed: Collection[bytes]) -> tuple[int, int]:
        """Hold no more what was not needed for a day, and begin that day for the rest of what is not `needed`.

        How many bytes the blobs have that are not needed and still held, and how many digests are not held any more.
        """
        lacking = set(needed)
        idle: list[Digest] = []
        gone = 0
        async for some in gathered(self._records.list(kind.prefix), _AT_ONCE):
            changed: dict[bytes, bytes] = {}
            over: list[bytes] = []
            for key, value in some:
                raw = key[len(kind.prefix) :]
                lacking.discard(raw)
                if raw in needed:
                    if value:
                        changed[key] = b""
                elif value and self._uses.hour() - read_hour(value) >= _UNSENT:
                    over.append(key)
                else:
                    idle.append(Digest(raw))
                    if not value:
                        changed[key] = write_hour(self._uses.hour())
            if changed:
                await self._records.put(changed, durable=False)
            over = [key for key in over if await self._records.get(key)]  # and was not sent again just now
            await self._records.delete(over)
            gone += len(over)
        await self._held.put(kind, [Digest(raw) for raw in lacking])
        return await self._size_of(idle) if kind is Kind.BLOB else 0, gone

    async def _hold_late(self, roots: Collection[bytes]) -> None:
        """Hold what the paths need that came meanwhile."""
        late = Reached(self._content.blobs, self._content.directories)
        keys: list[Digest] = []
        async for path_info in self._own.path_infos.list():
            key = nar_key(path_info.node)
            if key.raw not in roots:
                keys.append(key)
                await late.add(path_info.node)
        for kind, digests in (
            (Kind.BLOB, [Digest(raw) for raw in late.blobs]),
            (Kind.DIRECTORY, [Digest(raw) for raw in late.directories]),
            (Kind.NAR, keys),
        ):
            await self._held.put(kind, list(await self._held.lacking(kind, digests, to_send=True)))

    async def _drop_links(self, roots: Collection[bytes]) -> None:
        """Drop what is known of NARs that the cache does not hold any more."""
        link = kind_of(_LINK)
        assert link is not None
        async for some in gathered(self._records.list(_LINK), _AT_ONCE):
            over: list[bytes] = []
            for key, value in some:
                node = link.content_of(value)
                if isinstance(node, Digest) or node is None or not await self._holds(nar_key(node), roots):
                    over += (key, _FILE + key[len(_LINK) :])
            await self._records.delete(over)
        async for some in gathered(self._records.list(_PLAN), _AT_ONCE):
            await self._records.delete([key for key, _ in some if not await self._holds(Digest(key[len(_PLAN) :]), roots)])

    async def _holds(self, key: Digest, roots: Collection[bytes]) -> bool:
        return key.raw in roots or await self._held.has(Kind.NAR, key)

    async def _size_of(self, blobs: Sequence[Digest]) -> int:
        """Bytes of blobs, of which those that are chunks of others among them count once."""
        sizes: dict[bytes, int] = {}
        chunks: set[bytes] = set()
        for digest in blobs:
            stat = await self._content.blobs.stat(digest, chunks=True)
            if stat is not None:
                sizes[digest.raw] = stat.size or 0
                chunks.update(chunk.digest.raw for chunk in stat.chunks)
            await self._yielder.step()
        return sum(size for raw, size in sizes.items() if raw not in chunks)
