"""Collector: one run of the collection of content, in the order that docs/design/collection.md argues for."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import chain, groupby

from tvix_store.backends.local.collection.mark import Mark
from tvix_store.backends.local.collection.roots import all_engines, mark_roots
from tvix_store.backends.local.collection.steps import Condemn, Drop, Publish, Rescue, published_at
from tvix_store.backends.local.collection.watch import Watch
from tvix_store.backends.local.contents import Name, Written
from tvix_store.backends.local.engine import Engine
from tvix_store.backends.local.ledger import REMOVED
from tvix_store.backends.local.records import HEADER_SIZE, KEY_SIZE, Kind
from tvix_store.backends.local.removal import say_all_again
from tvix_store.backends.local.requests import Look, Request
from tvix_store.errors import InvalidError
from tvix_store.services.batches import batched
from tvix_store.services.collection import NOTHING, Amount, Collected

_KINDS = (Kind.CHUNK_LIST, Kind.CHUNK, Kind.DIRECTORY)
"""In the order in which contents are condemned: a list goes before its chunks."""
_AT_ONCE = 2000
"""Contents that one transaction condemns: some 20 ms, for which others' puts wait."""


class Collector:
    """Collects the content of a store. The caller sees to it that it is the only one, and runs in a thread that may wait.

    grace: For so many seconds content stays condemned.
    clock: The seconds since 1970.
    without: Output hashes of paths of the store that count as not there, for `look`.
    """

    def __init__(
        self, engine: Engine, grace: float, watch: Watch, clock: Callable[[], float], without: Collection[bytes] = ()
    ) -> None:
        self._engine = engine
        self._index = engine.index
        self._grace = grace
        self._watch = watch
        self._clock = clock
        self._without = without

    def look(self) -> Collected:
        """What there is to condemn, and what is condemned. Raises as `run`."""
        with all_engines(self._engine) as engines:
            mark = self._marked(engines)
        return Collected(condemned=_amount(chain.from_iterable(self._unneeded(mark))), waiting=self._condemned())

    def run(self) -> Collected:
        """Go through all steps whose time has come.

        Raises:
            StoreError: as `ContentCollection.collect`.
            StoppedError: nobody waits for it any more.
        """
        with self._index.reading() as txn:
            published = published_at(self._index, txn)
        ready_at = int(published + self._grace)
        if published and self._clock() < ready_at:
            return Collected(waiting=self._condemned(), ready_at=ready_at)
        with all_engines(self._engine) as engines:
            for each in engines:
                say_all_again(each)
            mark = self._marked(engines)
        self._do(Look())  # what was found in this process is taken back
        self._rescue(mark)
        waiting, dropped = self._condemned(), NOTHING
        drop = Drop(published)
        self._do(drop)
        if drop.is_dropped:
            waiting, dropped = NOTHING, waiting
        condemned = self._condemn(mark)
        if not condemned.count and not waiting.count:
            return Collected(dropped=dropped)
        now = int(self._clock())
        with self._engine.roots_lock.alone():
            self._do(Publish(mark.nodes, now))
        return Collected(condemned, dropped, waiting, int(now + self._grace))

    def _marked(self, engines: Sequence[Engine]) -> Mark:
        """All that the store, and its named caches, need."""
        mark = Mark(self._index, self._engine.reader, self._watch)
        mark_roots(engines, mark, self._without)
        with self._index.reading() as txn:
            had_paths = bool(self._without) or self._index.counter(txn, REMOVED) > 0
        if not had_paths and not len(mark.nodes) + len(mark.blobs) and next(self._index.all_keys(Kind.CHUNK), None) is not None:
            directory = self._engine.directory
            raise InvalidError(
                f"nothing is collected: {directory} never had a path, so it may hold what paths of another store need"
            )
        return mark

    def _rescue(self, mark: Mark) -> None:
        """Take back what is needed after all."""
        for some in batched(self._needed_but_condemned(mark), _AT_ONCE):
            self._do(Rescue(some))

    def _condemn(self, mark: Mark) -> Amount:
        """Condemn what is not needed; how much that is."""
        done = NOTHING
        for some in batched(self._unneeded(mark), _AT_ONCE):
            condemn = Condemn(some)
            self._do(condemn)
            done += _amount(condemn.condemned)
            self._watch.tell("condemned", done.count, done.count)
        return done

    def _condemned(self) -> Amount:
        return _amount(each for kind in _KINDS for each in self._index.all_contents(kind, condemned=True))

    def _needed_but_condemned(self, mark: Mark) -> Iterator[Name]:
        is_any = False
        for kind in _KINDS:
            for key in self._index.all_keys(kind, condemned=True):
                is_any = True
                if key[:KEY_SIZE] in mark.needed(kind):
                    yield kind, key[:KEY_SIZE]
        for chunk in mark.chunks_of_lists() if is_any else ():
            with self._index.reading() as txn:
                is_condemned = self._index.place_in(txn, Kind.CHUNK, chunk, condemned=True) is not None
            if is_condemned:
                yield Kind.CHUNK, chunk

    def _unneeded(self, mark: Mark) -> Iterator[list[Written]]:
        """Live contents that nobody needs, and that were there when the mark began; the segments of a chunk list together."""
        for kind in _KINDS:
            contents = self._index.all_contents(kind, without=mark.needed(kind))
            for _, found in groupby(contents, lambda each: each.key[:KEY_SIZE]):
                some = list(found)
                if not any(map(mark.is_new, some)):
                    yield some

    def _do(self, request: Request) -> None:
        self._watch.tell("", 0, 0)
        self._engine.committer.submit(request).result()


def _amount(contents: Iterable[Written]) -> Amount:
    count = size = 0
    for each in contents:
        count += 1
        size += each.place.stored + HEADER_SIZE
    return Amount(count, size)
