"""Committer: contents that are put directly, gathered into commits.

What comes while a commit is under way goes into the next one. So many small puts at once cost few requests.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tvix_store.backends.objectstore.bucket import Bucket
from tvix_store.backends.objectstore.packed.contents import Content, Kind, Name, NarRow
from tvix_store.backends.objectstore.packed.pack import MOST_ENTRIES, Footer, PackPart, commit_key, later_than
from tvix_store.backends.objectstore.packed.refresher import MARGIN, Refresher
from tvix_store.backends.objectstore.packed.tree_writer import TreeWriter
from tvix_store.backends.objectstore.packed.view import Commit, View
from tvix_store.errors import ClosedError
from tvix_store.model.digest import Digest
from tvix_store.model.directory import Directory
from tvix_store.services.batches import filling

_AT_ONCE = 3
"""Commits of gathered contents that are under way at a time."""
_ENOUGH = 4 << 20
"""Bytes that are gathered, from which a commit begins while others are under way."""
_ORDER = {Kind.CHUNK: 0, Kind.LIST: 1, Kind.DIRECTORY: 2}
_TIMELY = MARGIN / 1000 / 3
"""Seconds that a commit may take from when its time is chosen, and that what is known of the commits of others may be old then."""


@dataclass(slots=True, eq=False)
class _Batch:
    contents: dict[Name, Content] = field(default_factory=dict)
    nars: list[NarRow] = field(default_factory=list)
    size: int = 0


class Committer:
    """Writes commits, and takes them into the view. The Sink of direct puts."""

    def __init__(self, bucket: Bucket, view: View, refresher: Refresher, trees: TreeWriter, most: int) -> None:
        self._bucket = bucket
        self.trees = trees
        self._view = view
        self._refresher = refresher
        self._most = most
        """Bytes of a pack."""
        self._gathering = _Batch()
        self._next: asyncio.Task[None] | None = None
        """Stores what is being gathered."""
        self._waiting = 0
        """Batches that wait for their turn."""
        self._running = 0
        self._changed = asyncio.Condition()
        self._last_time = 0
        self._closed = False

    async def unknown(self, names: Sequence[Name]) -> set[Name]:
        return set(names) - await asyncio.to_thread(self._view.known, names)

    async def put_graph(self, root: Digest, contents: Sequence[Content], graph: Mapping[bytes, Directory]) -> None:
        if contents:
            await self.put(contents)
            await self.trees.put(root.raw, graph)

    async def put(self, contents: Sequence[Content], nars: Sequence[NarRow] = ()) -> None:
        """Store contents, with others. They are visible, and safe, when this returns.

        Raises:
            UnavailableError, DeniedError, ExhaustedError: the object store does not take them.
        """
        # What refers to other content comes behind it: chunks, lists, directories from the leaves on.
        ordered = sorted(contents, key=lambda content: _ORDER[content.kind])
        groups = list(filling(ordered, lambda content: len(content.stored), size=self._most, count=MOST_ENTRIES)) or [[]]
        for group in groups[:-1]:
            await self._stored(group, ())
        await self._stored(groups[-1], nars)

    async def _stored(self, contents: Sequence[Content], nars: Sequence[NarRow]) -> None:
        """Put contents that all go into one commit."""
        batch = self._gathering
        size = sum(len(content.stored) for content in contents)
        if batch.size + size > self._most or len(batch.contents) + len(contents) > MOST_ENTRIES:
            batch = self._gathering = _Batch()  # the one before is being stored, or waits for its turn
            self._next = None
        batch.contents.update((content.name, content) for content in contents)
        batch.size += size
        batch.nars += nars
        storing = self._begun()
        async with self._changed:
            self._changed.notify_all()  # there may be enough now
        await asyncio.shield(storing)  # one who does not wait any longer must not stop what others wait for

    async def commit(self, footer: Footer, body: Sequence[bytes | memoryview]) -> str:
        """Write one commit, whose own records are `body`; its key. The footer's parts have no key where they are in it.

        Others list what is at most MARGIN older than the newest commit. So one that has become too old meanwhile is written again.
        """
        while True:
            if self._closed:
                raise ClosedError("the store is closed")
            await self._refresher.refresh(_TIMELY)
            began = time.clock_gettime(time.CLOCK_BOOTTIME)  # which goes on while the machine sleeps
            key, data = await asyncio.to_thread(self._encoded, footer, body)
            await self._bucket.put(key, data)
            if time.clock_gettime(time.CLOCK_BOOTTIME) - began <= _TIMELY:
                break
        await asyncio.to_thread(self._view.add, [Commit(key, footer)])
        return key

    def _encoded(self, footer: Footer, body: Sequence[bytes | memoryview]) -> tuple[str, bytes]:
        encoded = footer.encode()
        return commit_key(self._time(), len(encoded)), b"".join((*body, encoded))

    async def close(self) -> None:
        """Wait for all that is under way."""
        async with self._changed:
            await self._changed.wait_for(lambda: not self._waiting and not self._running)
        self._closed = True

    def _time(self) -> int:
        """The time of a commit. It is later than that of all commits that are known, whatever the clock says.

        So who has listed the commits up to the newest one finds all later ones behind it.
        """
        self._last_time = max(int(time.time() * 1000), later_than(self._view.newest), self._last_time + 1)
        return self._last_time

    def _begun(self) -> asyncio.Task[None]:
        """What stores the batch that is being gathered."""
        if self._closed:
            raise ClosedError("the store is closed")
        if self._next is None:
            self._waiting += 1
            self._next = asyncio.create_task(self._store(self._gathering))
            self._next.add_done_callback(_noticed)
        return self._next

    async def _store(self, batch: _Batch) -> None:
        async with self._changed:
            await self._changed.wait_for(
                lambda: not self._running or (self._running < _AT_ONCE and (batch.size >= _ENOUGH or batch is not self._gathering))
            )
            self._waiting -= 1
            self._running += 1
            if batch is self._gathering:
                self._gathering, self._next = _Batch(), None
        try:
            part = PackPart("")
            for content in batch.contents.values():
                part.add(content)
            await self.commit(Footer([part], batch.nars), [content.stored for content in batch.contents.values()])
        finally:
            async with self._changed:
                self._running -= 1
                self._changed.notify_all()


def _noticed(task: asyncio.Task[None]) -> None:
    """Take note of a failure that nobody waits for any more."""
    if not task.cancelled():
        task.exception()
