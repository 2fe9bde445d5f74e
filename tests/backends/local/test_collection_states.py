"""A store is used, collected step by step, and crashes, in any order: what was promised is there after each step.

A second process, the peer, uses the store as well. A collection stops at each of its steps, and whatever the machine does comes
between two of them.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.backends.local import collection_peer
from tests.backends.local.collected_history import small_packs, small_steps
from tests.backends.local.collection_peer import FILES, TREES, Peer
from tests.backends.local.raw_content import RawContent
from tests.backends.local.simulated_disk import NoSyncs
from tests.backends.local.store_files import let_another_boot_follow, make_index_anew
from tests.backends.local.test_checkpoint import checkpointer_of, engine_of
from tvix_store.backends.local.collection.collector import Collector
from tvix_store.backends.local.collection.rewriting import Rewriting
from tvix_store.backends.local.collection.watch import StoppedError, Watch
from tvix_store.backends.memory import open_store as open_memory
from tvix_store.errors import IncompleteError, StoreError, UnavailableError
from tvix_store.model.digest import Digest
from tvix_store.model.path_info import PathInfo
from tvix_store.services.staging import Stage
from tvix_store.services.store import Store
from tvix_store.testing.content import put_tree
from tvix_store.testing.contracts.path_infos import path
from tvix_store.testing.trees import castore

EXAMPLES = int(os.environ.get("TVIX_STORE_TEST_COLLECTION_EXAMPLES", "8"))
STEPS = int(os.environ.get("TVIX_STORE_TEST_COLLECTION_STEPS", "40"))
GRACE = 100

NAMES = st.sampled_from(("p", "q", "r"))
TREE_NAMES = st.sampled_from(sorted(TREES))
FILE_NAMES = st.sampled_from(sorted(FILES))
BY = st.booleans()
"""Whether the peer does it."""


class Pausing(Watch):
    """Waits at each step of a run until it is told to go on."""

    def __init__(self) -> None:
        super().__init__()
        self._go, self._paused = threading.Semaphore(0), threading.Semaphore(0)
        self._is_over = False

    def tell(self, step: str, done: int, total: int) -> None:
        self._paused.release()
        self._go.acquire()
        super().tell(step, done, total)

    def rest(self, seconds: float) -> None:
        self.tell("", 0, 0)

    def run(self, work: Callable[[], None]) -> None:
        """Do the work, in its thread."""
        self._go.acquire()
        try:
            work()
        finally:
            self._is_over = True
            self._paused.release()

    def step(self) -> bool:
        """Let the run go on to its next step; whether there is one."""
        self._go.release()
        self._paused.acquire()
        return not self._is_over


class CollectionMachine(RuleBasedStateMachine):
    peer: ClassVar[Peer]

    def __init__(self) -> None:
        super().__init__()
        self._scratch = tempfile.TemporaryDirectory()
        self._runner = asyncio.Runner()
        self._count = 0
        self._directory = Path(self._scratch.name) / "store"
        self._store = self._open()
        memory = self._runner.run(open_memory())
        self._nodes = {name: self._runner.run(put_tree(memory, tree)) for name, tree in TREES.items()}
        self._nars = {name: self._runner.run(memory.nar.calculate(node)) for name, node in self._nodes.items()}
        self._there: dict[bytes, PathInfo] = {}
        """Paths that were acknowledged."""
        self._gone: set[bytes] = set()
        self._kept: dict[bytes, PathInfo] = {}
        """Those of the named cache."""
        self._documents: dict[str, str] = {}
        self._answers: dict[bytes, int] = {}
        """Blobs that were said to be there, and when that was."""
        self._stage: tuple[Stage, str] | None = None
        self._now = 1_000_000
        self._grace = 0
        self._running: tuple[threading.Thread, Pausing, list[BaseException]] | None = None

    @initialize(grace=st.sampled_from((0, GRACE)), tree=TREE_NAMES)
    def begin(self, grace: int, tree: str) -> None:
        self._grace = grace
        self.put_path("stays", tree, False)

    def _open(self) -> Store:
        store = self._runner.run(small_packs(self._directory, NoSyncs))
        self.peer.do("open", self._directory)
        return store

    def _do(self, by_peer: bool, what: Callable[..., Coroutine[Any, Any, Any]], *arguments: Any) -> Any:
        return self.peer.do(what, *arguments) if by_peer else self._runner.run(what(self._store, *arguments))

    def _info(self, name: str, tree: str) -> PathInfo:
        return PathInfo(path(name), self._nodes[tree], self._nars[tree])

    def _answered(self, *digests: Digest) -> None:
        self._answers.update({digest.raw: self._now for digest in digests})

    @rule(name=NAMES, tree=TREE_NAMES, by=BY)
    def put_path(self, name: str, tree: str, by: bool) -> None:
        info = self._info(name, tree)
        if self._there.get(info.store_path.output_hash, info) != info:
            return
        self._gone.discard(info.store_path.output_hash)
        self._do(by, collection_peer.put_contents, tree)
        assert self._do(by, collection_peer.put_info, info) == info
        self._there[info.store_path.output_hash] = info

    @rule(name=NAMES, tree=TREE_NAMES, by=BY)
    def import_path(self, name: str, tree: str, by: bool) -> None:
        info = self._info(name, tree)
        if self._there.get(info.store_path.output_hash, info) != info:
            return
        self._gone.discard(info.store_path.output_hash)
        assert self._do(by, collection_peer.import_tree, info, tree) == info
        self._there[info.store_path.output_hash] = info

    @rule(tree=TREE_NAMES, by=BY)
    def put_contents(self, tree: str, by: bool) -> None:
        self._do(by, collection_peer.put_contents, tree)
        self._answered(*castore(TREES[tree]).blobs)

    @rule(names=st.lists(st.sampled_from(("a", "b", "c")), min_size=1, max_size=3), by=BY)
    def put_blobs(self, names: list[str], by: bool) -> None:
        self._answered(*self._do(by, collection_peer.put_many, names))

    @rule(name=NAMES, tree=TREE_NAMES, by=BY, kept=st.booleans())
    def put_info_alone(self, name: str, tree: str, by: bool, kept: bool) -> None:
        """Of content that may be there, from earlier, or not."""
        info = self._info(name, tree)
        there = self._kept if kept else self._there
        if there.get(info.store_path.output_hash, info) != info:
            return
        if not kept:
            self._gone.discard(info.store_path.output_hash)
        try:
            self._do(by, collection_peer.put_kept_info if kept else collection_peer.put_info, info)
        except IncompleteError:  # all was said to be there, perhaps; but its directories were not
            pass
        else:
            there[info.store_path.output_hash] = info

    @rule(name=NAMES, by=BY)
    def remove_path(self, name: str, by: bool) -> None:
        output_hash = path(name).output_hash
        self._there.pop(output_hash, None)
        if self._do(by, collection_peer.remove, output_hash):
            self._gone.add(output_hash)

    @rule(names=st.lists(FILE_NAMES, min_size=1, max_size=3), by=BY)
    def ask(self, names: list[str], by: bool) -> None:
        digests = [Digest.of(FILES[name]) for name in names]
        lacking = self._do(by, collection_peer.missing, digests)
        self._answered(*(digest for digest in digests if digest not in lacking))
        if self._do(by, collection_peer.stat, digests[0]):
            self._answered(digests[0])

    @rule(name=FILE_NAMES, by=BY)
    def read(self, name: str, by: bool) -> None:
        digest = Digest.of(FILES[name])
        try:
            assert self._do(by, collection_peer.read, digest) == FILES[name]
            self._answered(digest)
        except StoreError:
            assert not self._relied_on(digest)

    @rule(tree=TREE_NAMES, by=BY)
    def calculate(self, tree: str, by: bool) -> None:
        with suppress(StoreError):
            assert self._do(by, collection_peer.calculate, self._info("any", tree)) == self._nars[tree]

    @rule(name=st.sampled_from("xy"), content=FILE_NAMES, by=BY)
    def put_document(self, name: str, content: str, by: bool) -> None:
        self._documents.pop(name, None)
        self._do(by, collection_peer.put_document, name, content)
        self._documents[name] = content

    @rule(tree=TREE_NAMES)
    def begin_stage(self, tree: str) -> None:
        if self._stage is None:
            assert self._store.staging is not None
            self._stage = self._store.staging.begin(), tree
            self._runner.run(collection_peer.put_staged(*self._stage))

    @precondition(lambda self: self._stage is not None)
    @rule(name=NAMES, is_accepted=st.booleans())
    def end_stage(self, name: str, is_accepted: bool) -> None:
        assert self._stage is not None
        (stage, tree), self._stage = self._stage, None
        info = self._info(name, tree)
        if is_accepted and self._there.get(info.store_path.output_hash, info) == info:
            self._gone.discard(info.store_path.output_hash)
            try:
                self._runner.run(collection_peer.accepted(stage, info))
                self._runner.run(collection_peer.put_info(self._store, info))
            except (UnavailableError, IncompleteError):
                pass  # what was known when it was staged was deleted since
            else:
                self._there[info.store_path.output_hash] = info
        self._runner.run(collection_peer.closed(stage))

    @rule(seconds=st.sampled_from((1, GRACE // 2, GRACE)))
    def wait(self, seconds: int) -> None:
        self._now += seconds

    @rule(steps=st.sampled_from((1, 2, 5, 1000)))
    def collect(self, steps: int) -> None:
        """Go on with a collection, or begin one."""
        if self._running is None:
            engine, watch, errors = engine_of(self._store), Pausing(), list[BaseException]()

            def work() -> None:
                try:
                    Collector(engine, self._grace, watch, lambda: self._now).run()
                    Rewriting(engine, watch).run()
                except BaseException as error:  # noqa: BLE001 - of another thread
                    errors.append(error)

            thread = threading.Thread(target=watch.run, args=(work,))
            thread.start()
            self._running = thread, watch, errors
        thread, watch, errors = self._running
        for _ in range(steps):
            if not watch.step():
                thread.join()
                self._running = None
                assert not errors or isinstance(errors[0], StoppedError), errors
                break

    @rule(name=NAMES, tree=TREE_NAMES, by=BY, steps=st.integers(1, 12))
    def put_again_during_a_run(self, name: str, tree: str, by: bool, steps: int) -> None:
        self.remove_path(name, by)
        self.collect(steps)
        self.put_path(name, tree, by)
        self.collect(1000)

    @rule(name=NAMES, tree=TREE_NAMES, by=BY, steps=st.integers(1, 6), kept=st.booleans())
    def put_what_is_condemned_during_a_run(self, name: str, tree: str, by: bool, steps: int, kept: bool) -> None:
        self.put_contents(tree, by)
        self.remove_path(name, by)
        self.collect(1000)
        self.collect(steps)
        self.put_info_alone(name, tree, by, kept)
        self.collect(1000)

    @rule()
    def make_checkpoint(self) -> None:
        checkpointer_of(engine_of(self._store)).make()

    @rule(how=st.sampled_from(("killed", "another boot", "anew", "closed")))
    def crash(self, how: str) -> None:
        """Go on with a copy of the files as they are now: what only the processes knew is lost."""
        self._count += 1
        copy = Path(self._scratch.name) / f"store {self._count}"
        if how != "closed":
            shutil.copytree(self._directory, copy)
        self._stop()
        if how == "closed":
            copy = self._directory
        else:
            shutil.rmtree(self._directory)
        self._directory = copy
        if how == "another boot":
            for each in (copy, *(copy / "caches").glob("*")):
                let_another_boot_follow(each)
        elif how == "anew":
            make_index_anew(copy)
        self._store = self._open()

    def _stop(self) -> None:
        if self._running is not None:
            thread, watch, _ = self._running
            watch.stop()
            while watch.step():
                pass
            thread.join()
            self._running = None
        if self._stage is not None:
            self._runner.run(collection_peer.closed(self._stage[0]))
            self._stage = None
        self._runner.run(collection_peer.closed(self._store))
        self.peer.do("close")

    def _relied_on(self, digest: Digest) -> bool:
        """Whether it was said to be there less than a grace ago."""
        return self._grace > 0 and self._now < self._answers.get(digest.raw, -GRACE) + GRACE

    @invariant()
    def what_was_promised_is_there(self) -> None:
        raw = RawContent(engine_of(self._store))
        for output_hash, info in self._there.items():
            assert engine_of(self._store).index.path_info(output_hash) == info.encoded
            assert raw.is_whole(info.node), f"{info.store_path} is not whole"
        for info in self._kept.values():
            assert raw.is_whole(info.node), f"{info.store_path} of the cache is not whole"
        for output_hash in self._gone:
            assert engine_of(self._store).index.path_info(output_hash) is None
        for content in self._documents.values():
            assert raw.holds(Digest.of(FILES[content]).raw), "a document is not whole"
        for digest in map(Digest, self._answers):
            assert not self._relied_on(digest) or raw.holds(digest.raw), "what was said to be there is gone"
        assert raw.lists_without_chunks() == []

    def teardown(self) -> None:
        self._stop()
        self._runner.close()
        self._scratch.cleanup()


@pytest.mark.timeout(36_000)
class TestCollectionStates(CollectionMachine.TestCase):  # type: ignore[misc, valid-type]
    settings = settings(max_examples=EXAMPLES, stateful_step_count=STEPS, deadline=None, suppress_health_check=list(HealthCheck))

    @classmethod
    def setUpClass(cls) -> None:
        CollectionMachine.peer = Peer()
        cls._steps = small_steps()
        cls._steps.__enter__()

    @classmethod
    def tearDownClass(cls) -> None:
        cls._steps.__exit__(None, None, None)
        CollectionMachine.peer._process.kill()
