"""Collector: one run of the collection of content, in the order that docs/design/collection.md argues for."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

from tvix_store.backends.local.collection.mark import Mark
from tvix_store.backends.local.collection.roots import mark_roots
from tvix_store.backends.local.collection.steps import Condemn, Drop, Publish, Rescue, published_at
from tvix_store.backends.local.contents import Name, Written
from tvix_store.backends.local.engine import Engine
from tvix_store.backends.local.records import HEADER_SIZE, KEY_SIZE, Kind
from tvix_store.backends.local.requests import Request
from tvix_store.errors import InvalidError, UnavailableError

_KINDS = (Kind.CHUNK_LIST, Kind.CHUNK, Kind.DIRECTORY)
"""In the order in which contents are condemned: a list goes before its chunks."""
_AT_ONCE = 2000
"""Contents that one transaction condemns: some 20 ms, for which others' puts wait."""
_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Contents:
    """How many contents, and the bytes that they take in packs."""

    count: int = 0
    size: int = 0

    def add(self, content: Written) -> None:
        self.count += 1
        self.size += content.place.stored + HEADER_SIZE


@dataclass(slots=True)
class Run:
    """What a run has done.

    condemned: What is condemned from now on; of a run that only looks, what would be.
    dropped: What was condemned before, and is not there any more.
    waiting: What was condemned before, and waits.
    ready_at: When what is condemned may go (seconds since 1970).
    """

    condemned: Contents
    dropped: Contents
    waiting: Contents
    ready_at: int = 0


class Collector:
    """Collects the content of a store. The caller sees to it that it is the only one, and runs in a thread that may wait.

    `grace`: for so many seconds content stays condemned.
    """

    def __init__(self, engine: Engine, grace: float, clock: Callable[[], float] = time.time) -> None:
        if engine.refusal is not None:
            raise UnavailableError(engine.refusal)
        self._engine = engine
        self._index = engine.index
        self._grace = grace
        self._clock = clock

    def run(self, *, dry_run: bool = False) -> Run:
        """Go through all steps whose time has come. `dry_run` changes nothing.

        Raises:
            CorruptError: something that is needed is missing or damaged. Nothing was condemned or dropped.
            InvalidError: nothing is needed at all.
            StoreError: the store cannot be read or written. What was done stays, and the next run goes on.
        """
        run = Run(Contents(), Contents(), Contents())
        published, run.waiting = self._condemned()
        if published and self._clock() < published + self._grace:
            run.ready_at = int(published + self._grace)
            return run
        mark = self._marked()
        if dry_run:
            for each in self._unneeded(mark):
                run.condemned.add(each)
            return run
        self._rescue(mark)
        _, there = self._condemned()
        drop = Drop(published)
        self._do(drop)
        if drop.is_dropped:
            run.dropped, run.waiting = there, Contents()
        unneeded = self._unneeded(mark)
        while some := list(islice(unneeded, _AT_ONCE)):
            condemn = Condemn(some)
            self._do(condemn)
            for each in condemn.condemned:
                run.condemned.add(each)
        self._publish(mark, run)
        return run

    def _publish(self, mark: Mark, run: Run) -> None:
        now = int(self._clock())
        if run.condemned.count or run.waiting.count:
            self._do(Publish(mark.nodes, now))
            run.ready_at = int(now + self._grace)

    def _marked(self) -> Mark:
        """All that is needed."""
        mark = Mark(self._index, self._engine.reader)
        mark_roots(self._engine, mark)
        if self._index.is_damaged:  # rows of path infos may be hidden
            raise UnavailableError("nothing is collected: the index is damaged; it is made anew when the store is opened again")
        if not len(mark.nodes) + len(mark.blobs) and next(self._index.all_contents(Kind.CHUNK), None) is not None:
            raise InvalidError(
                f"no path needs anything of {self._engine.directory}: it may hold what paths elsewhere need, so nothing is collected"
            )
        return mark

    def _condemned(self) -> tuple[int, Contents]:
        """When what is condemned was published (seconds since 1970, 0: not), and how much it is."""
        found = Contents()
        for kind in _KINDS:
            for each in self._index.all_contents(kind, condemned=True):
                found.add(each)
        with self._index.reading() as txn:
            return published_at(self._index, txn), found

    def _rescue(self, mark: Mark) -> None:
        """Take back what is needed after all."""
        names = self._needed_but_condemned(mark)
        while some := list(islice(names, _AT_ONCE)):
            self._do(Rescue(some))

    def _needed_but_condemned(self, mark: Mark) -> Iterator[Name]:
        is_any = False
        for kind in _KINDS:
            for each in self._index.all_contents(kind, condemned=True):
                is_any = True
                if mark.is_needed(each):
                    yield kind, each.key[:KEY_SIZE]
        if is_any:
            for chunk in mark.chunks_of_lists():
                with self._index.reading() as txn:
                    is_condemned = self._index.place_in(txn, Kind.CHUNK, chunk, condemned=True) is not None
                if is_condemned:
                    yield Kind.CHUNK, chunk

    def _unneeded(self, mark: Mark) -> Iterator[Written]:
        """Live contents that nobody needs, and that were there when the mark began."""
        for kind in _KINDS:
            for each in self._index.all_contents(kind):
                if not mark.is_needed(each) and not mark.is_new(each):
                    yield each

    def _do(self, request: Request) -> None:
        self._engine.committer.submit(request).result()
