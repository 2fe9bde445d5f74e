"""A named cache lets go of what nobody uses, and of nothing else."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from tvix_store.backends.local import open_store as open_local
from tvix_store.config import open_store, verified
from tvix_store.errors import InvalidError, NotFoundError, StoreError, UnavailableError
from tvix_store.layers.holding import RetentionTerms, named_cache, retention
from tvix_store.layers.holding.held import Held, Kind
from tvix_store.layers.holding.quota import Quota
from tvix_store.layers.holding.retention import Outcome, Retention
from tvix_store.model.digest import Digest
from tvix_store.model.nodes import DirectoryNode, FileNode, Node
from tvix_store.model.path_info import PathInfo
from tvix_store.operations.collection.hours import Hours
from tvix_store.operations.collection.pins import Pins
from tvix_store.operations.nars.kept_plans import KeptPlans
from tvix_store.operations.nars.links import NarLink, NarLinks
from tvix_store.operations.nars.plan import Plan
from tvix_store.operations.nars.planner import plan_nar
from tvix_store.operations.paths.documents import KeptDocuments
from tvix_store.services.store import Store
from tvix_store.testing.content import collect, noise, put_tree, stream
from tvix_store.testing.contracts.path_infos import path
from tvix_store.testing.trees import Tree, TreeFile

HOURS = 48


@dataclass
class Cache:
    """A named cache with a clock of its own, which keeps paths for HOURS."""

    content: Store
    own: Store
    clock: float = 500_000 * 3600.0
    is_alone: bool = True
    store: Store = field(init=False)
    terms: RetentionTerms = field(init=False)

    def __post_init__(self) -> None:
        self.terms = RetentionTerms("one", HOURS, self.alone, lambda: self.clock)
        cache = named_cache(replace(self.content, close=nothing), replace(self.own, close=nothing), None, self.terms)
        self.store = verified(cache, require_references=True)

    @contextmanager
    def alone(self) -> Iterator[bool]:
        yield self.is_alone

    async def let_pass(self, hours: int) -> None:
        """So many hours, of which each is looked at."""
        for _ in range(hours):
            self.clock += 3600
            await self.hours().look()

    def hours(self) -> Hours:
        assert self.own.records is not None
        return Hours(self.own.records, lambda: self.clock)

    def retention(self) -> Retention:
        assert self.own.records is not None
        return Retention(self.content, self.own, Held(self.own.records), Quota(self.own.records, None), self.terms)

    async def run(self, hours: int = 0) -> Outcome:
        await self.let_pass(hours)
        return await self.retention().run()

    async def push(self, name: str, tree: Tree | TreeFile, *references: str) -> PathInfo:
        root = await put_tree(self.store, tree)
        facts = await self.store.nar.calculate(root)
        return await self.store.path_infos.put(PathInfo(path(name), root, facts, tuple(sorted(map(path, references)))))

    async def names(self) -> set[str]:
        return {info.store_path.name async for info in self.store.path_infos.list()}

    async def use(self, name: str) -> None:
        """Ask for a path."""
        assert await self.store.path_infos.get(path(name).output_hash) is not None
        await self.reopen()

    async def reopen(self) -> None:
        """What is noted is written by then."""
        await self.store.close()
        self.__post_init__()

    async def used_bytes(self) -> int:
        assert self.own.records is not None
        counters = [value async for _, value in self.own.records.list(b"usage:")]
        return sum(int.from_bytes(value, "little", signed=True) for value in counters)

    async def records(self, prefix: bytes) -> list[bytes]:
        assert self.own.records is not None
        return [key async for key, _ in self.own.records.list(prefix)]

    async def check_complete(self) -> None:
        """All paths can be read, from what the cache holds."""
        assert self.own.records is not None
        held = Held(self.own.records)
        async for info in self.store.path_infos.list():
            async for directory, blob in contents(self.content, info.node):
                if directory is not None:
                    assert await held.has(Kind.DIRECTORY, directory), info.store_path
                if blob is not None:
                    assert await self.store.blobs.stat(blob) is not None, info.store_path
                    await collect(self.store.blobs.read(blob))


async def nothing() -> None:
    pass


async def contents(store: Store, root: Node) -> AsyncIterator[tuple[Digest | None, Digest | None]]:
    """The digests of directories, and those of blobs, that a root reaches."""
    if isinstance(root, DirectoryNode):
        async for directory in store.directories.get_recursive(root.digest):
            yield directory.digest, None
            for child in directory.entries.values():
                if isinstance(child, FileNode):
                    yield None, child.digest
    elif isinstance(root, FileNode):
        yield None, root.digest


@pytest.fixture
async def cache(tmp_path: Path) -> AsyncIterator[Cache]:
    async with await open_local(tmp_path / "store") as content, await open_local(tmp_path / "own") as own:
        cache = Cache(content, own)
        await cache.hours().look()
        await cache.run()
        yield cache
        await cache.store.close()


def tree(name: str) -> Tree:
    """Some 2.5 MB of its own, and a directory that all of them have."""
    return {
        b"own": {b"large": TreeFile(noise(2_400_000, f"large {name}")), b"small": TreeFile(noise(1000, f"small {name}"))},
        b"shared": {b"file": TreeFile(noise(300_000, "shared"))},
    }


async def sent_size(cache: Cache, *infos: PathInfo) -> int:
    """Bytes of files and directories that the paths reach, each once."""
    seen: dict[Digest, int] = {}
    for info in infos:
        async for directory, blob in contents(cache.content, info.node):
            if directory is not None:
                got = await cache.content.directories.get(directory)
                assert got is not None
                seen[directory] = len(got.encoded)
            if blob is not None:
                stat = await cache.content.blobs.stat(blob)
                assert stat is not None
                seen[blob] = stat.size or 0
    return sum(seen.values())


async def test_what_nobody_uses_goes_in_two_steps(cache: Cache) -> None:
    kept = await cache.push("kept", tree("kept"))
    gone = await cache.push("gone", tree("gone"))
    whole = await sent_size(cache, kept, gone)
    assert await cache.run() == Outcome(0, 0, whole)
    await cache.run(HOURS)
    assert await cache.names() == {"kept", "gone"}, "used in the hour from which on uses count"
    await cache.let_pass(1)
    await cache.use("kept")

    done = await cache.run()
    assert (done.paths, done.digests) == (1, 0)
    assert await cache.names() == {"kept"}
    large = Digest.of(noise(2_400_000, "large gone"))
    assert await cache.store.blobs.missing([large]) == {large}, "who asks what to send hears that it is to be sent"
    assert await collect(cache.store.blobs.read(large)), "who reads it can read it"
    assert await cache.store.nar.calculate(gone.node) == gone.nar
    assert await cache.used_bytes() == done.size

    done = await cache.run(25)
    assert done.digests > 3
    assert done.size == await sent_size(cache, kept) == await cache.used_bytes()
    with pytest.raises(NotFoundError):
        await cache.store.nar.calculate(gone.node)
    assert await cache.store.blobs.stat(large) is None
    await cache.check_complete()
    assert await cache.run() == Outcome(0, 0, done.size), "nothing is left to do"
    assert await cache.content.blobs.stat(large) is not None, "the content stays in the store"
    assert await cache.push("gone", tree("gone")) == gone
    await cache.check_complete()


async def test_what_a_used_path_refers_to_stays(cache: Cache) -> None:
    await cache.push("far", tree("far"))
    await cache.push("near", tree("near"), "far")
    await cache.push("needs", tree("needs"), "near")
    await cache.push("alone", tree("alone"), "near")
    await cache.let_pass(HOURS + 1)
    await cache.use("needs")
    assert (await cache.run()).paths == 1
    await cache.run(25)
    assert await cache.names() == {"far", "near", "needs"}
    await cache.check_complete()


@pytest.mark.parametrize("way", ["get", "get_many", "existing", "put"])
async def test_every_way_to_ask_for_a_path_uses_it(cache: Cache, way: str) -> None:
    info = await cache.push("used", tree("used"))
    await cache.push("unused", tree("unused"))
    await cache.let_pass(HOURS + 1)
    path_infos, key = cache.store.path_infos, info.store_path.output_hash
    match way:
        case "get":
            await path_infos.get(key)
        case "get_many":
            await path_infos.get_many([key])
        case "existing":
            await path_infos.existing([key])
        case "put":
            await path_infos.put(info)
    await cache.reopen()
    assert (await cache.run()).paths == 1
    assert await cache.names() == {"used"}


async def test_content_that_is_sent_again_stays(cache: Cache) -> None:
    gone = await cache.push("gone", tree("gone"))
    await cache.run(HOURS + 1)
    before = await cache.used_bytes()
    await cache.let_pass(23)
    await put_tree(cache.store, tree("gone"))
    assert await cache.used_bytes() == before, "it counts once"
    assert (await cache.run(2)).digests == 1, "the NAR, of which nobody has heard again"
    assert await cache.store.nar.calculate(gone.node) == gone.nar
    assert await cache.push("gone", tree("gone")) == gone
    await cache.run(1)
    await cache.run(25)
    assert await cache.names() == {"gone"}
    await cache.check_complete()


async def test_who_was_told_that_content_is_there_has_a_day_to_use_it(cache: Cache) -> None:
    await cache.push("first", tree("same"))
    await cache.let_pass(HOURS + 1)
    root = await put_tree(cache.store, tree("same"))
    await cache.run()
    await cache.let_pass(23)
    facts = await cache.store.nar.calculate(root)
    await cache.store.path_infos.put(PathInfo(path("second"), root, facts))
    await cache.run(1)
    await cache.run(25)
    assert await cache.names() == {"second"}
    await cache.check_complete()


async def test_paths_from_before_begin_their_time_with_the_first_run(cache: Cache) -> None:
    await cache.push("old", tree("old"))
    assert cache.own.records is not None
    await cache.own.records.delete(await cache.records(b"used:"))
    for hours, names in ((HOURS * 3, {"old"}), (HOURS, {"old"}), (1, set())):
        await cache.run(hours)
        assert await cache.names() == names


@pytest.mark.parametrize("hours", [80, 24 * 365 * 80, -24 * 365 * 50, -24 * 365 * 90])
async def test_time_passes_only_while_somebody_looks(cache: Cache, hours: int) -> None:
    """So a pause of the daemon, and a clock that is wrong, let nothing go."""
    await cache.push("path", tree("path"))
    await cache.let_pass(HOURS - 5)
    before = await cache.hours().now()
    cache.clock += hours * 3600
    for _ in range(3):
        await cache.hours().look()
    assert await cache.hours().now() - before == (2 if hours > 0 else 0)
    assert (await cache.run()).paths == 0
    await cache.push("wrong-time", tree("other"))
    cache.clock -= hours * 3600
    assert (await cache.run(3)).paths == 0
    assert (await cache.run(5)).paths == 1
    assert await cache.names() == {"wrong-time"}
    await cache.check_complete()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (b"used:" + path("kept").output_hash, b"bad"),
        (b"used:x", b"bad"),
        (b"hours:", b"bad"),
        (b"held:b" + bytes(32), b"bad"),
        (b"held:bx", b""),
        (b"held:n" + bytes(32), b"x" * 9),
        (b"plan:x", b"y"),
        (b"plan:" + bytes(32), b"bad"),
        (b"nar:x", b"bad"),
        (b"usage:x", b"bad"),
    ],
)
async def test_a_bad_record_stops_nothing(cache: Cache, key: bytes, value: bytes) -> None:
    await cache.push("kept", tree("kept"))
    await cache.push("gone", tree("gone"))
    assert cache.own.records is not None
    await cache.let_pass(HOURS + 1)
    await cache.own.records.put({key: value})
    await cache.use("kept")
    await cache.run()
    await cache.run(25)
    if key != b"hours:":  # then it begins anew
        assert await cache.names() == {"kept"}
        assert await cache.store.blobs.stat(Digest.of(noise(2_400_000, "large gone"))) is None
    await cache.check_complete()


async def test_where_parts_are_missing_no_content_goes(cache: Cache, caplog: pytest.LogCaptureFixture) -> None:
    await cache.push("gone", tree("gone"))
    assert cache.own.records is not None
    await cache.own.records.put({b"document:log/x": b"bad"})
    await cache.let_pass(HOURS + 1)
    await cache.run()
    await cache.run(25)
    assert (await cache.run(25)).digests == 0
    assert caplog.text.count("cache one lets go of no content: 1 parts of its paths are missing") == 3
    await cache.own.records.delete([b"document:log/x"])
    await cache.run()
    assert (await cache.run(25)).digests > 3


async def test_what_is_pushed_during_a_run_does_not_count_twice(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = Retention._hold_late

    async def with_a_push(self: Retention, roots: set[bytes]) -> None:
        await cache.push("late", tree("late"))
        await inner(self, roots)

    kept = await cache.push("kept", tree("kept"))
    monkeypatch.setattr(Retention, "_hold_late", with_a_push)
    await cache.run()
    late = await cache.store.path_infos.get(path("late").output_hash)
    assert late is not None
    assert await cache.used_bytes() <= await sent_size(cache, kept, late)
    monkeypatch.undo()
    await cache.run()
    assert await cache.used_bytes() == await sent_size(cache, kept, late)


async def test_what_is_known_of_nars_goes_and_documents_stay(cache: Cache) -> None:
    kept, gone = await cache.push("kept", tree("kept")), await cache.push("gone", tree("gone"))
    links = NarLinks.of(cache.store)
    assert links is not None
    assert cache.store.frames is not None
    for info in (kept, gone):
        await links.put(NarLink(info.nar, info.node), noise(32, info.store_path.name))
        plan = await plan_nar(cache.store.frames, cache.content.directories.tree(info.node))
        await KeptPlans(cache.store).put(info.node, plan)
    log = b"a log, much of it\n" * 100
    assert cache.store.records is not None
    await KeptDocuments(cache.store, cache.store.records).put("log", "abc.drv", stream([log]))
    await cache.let_pass(HOURS + 1)
    await cache.use("kept")
    await cache.run()
    await cache.run(25)
    assert await links.get(gone.nar.sha256) is None
    assert await links.get(kept.nar.sha256) == NarLink(kept.nar, kept.node)
    assert len(await cache.records(b"nar:")) == 2
    assert isinstance(await KeptPlans(cache.store).get(kept.node), Plan)
    assert len(await cache.records(b"plan:")) == 1
    assert await cache.store.blobs.stat(Digest.of(log)) is not None


async def test_a_path_that_comes_during_a_run_is_complete_after_it(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    """It needs what goes in this run, which was there when it was checked."""
    gone = await cache.push("gone", tree("gone"))
    await cache.run(HOURS + 1)
    await cache.let_pass(25)
    inner = Retention._let_go

    async def with_a_push(self: Retention, kind: Kind, needed: set[bytes], idle: Any, *, marks: bool) -> int:
        done = await inner(self, kind, needed, idle, marks=marks)
        if kind is Kind.DIRECTORY:
            await cache.own.path_infos.put(replace(gone, store_path=path("late")))
        return done

    monkeypatch.setattr(Retention, "_let_go", with_a_push)
    assert (await cache.run()).digests > 3
    await cache.check_complete()
    assert await cache.names() == {"late"}


async def test_a_run_that_is_broken_off_anywhere_goes_on_with_the_next(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    await cache.push("kept", tree("kept"))
    for number in range(3):
        await cache.push(f"gone-{number}", tree(f"gone {number}"))
    assert cache.own.records is not None
    left = 0
    records = type(cache.own.records)

    def breaking(name: str) -> None:
        inner = getattr(records, name)

        async def call(*arguments: object, **options: object) -> object:
            nonlocal left
            left -= 1
            if left == 0:
                raise UnavailableError("broken off")
            return await inner(*arguments, **options)

        monkeypatch.setattr(records, name, call)

    for name in ("put", "delete", "exchange"):
        breaking(name)
    await cache.let_pass(HOURS + 1)
    await cache.use("kept")
    monkeypatch.setattr(retention, "_AT_ONCE", 3)
    broken = 0
    for step in (*range(1, 60), 0):
        left = step
        try:
            await cache.run(0)
        except StoreError:
            broken += 1
            left = 0
            await cache.check_complete()
        if step % 6 == 0:
            left = 0
            await cache.let_pass(13)
            await cache.use("kept")
    assert broken > 20
    assert await cache.names() == {"kept"}
    await cache.check_complete()
    [info] = [info async for info in cache.store.path_infos.list()]
    assert (await cache.run()).size == await cache.used_bytes() == await sent_size(cache, info)


async def test_one_process_at_a_time_looks_after_a_cache_once_a_day(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = 0
    inner = Retention.run

    async def run(self: Retention) -> Outcome:
        nonlocal runs
        runs += 1
        return await inner(self)

    monkeypatch.setattr(Retention, "run", run)
    monkeypatch.setattr(retention, "_BEGIN", 0.01)
    monkeypatch.setattr(retention, "_AGAIN", 0.01)
    cache.is_alone = False
    serving = asyncio.create_task(cache.retention().serve())
    await asyncio.sleep(0.2)
    assert runs == 0
    cache.is_alone = True
    await cache.let_pass(24)
    for number in range(3):
        await asyncio.sleep(0.3)
        assert runs == number + 1
        await cache.let_pass(24)
    serving.cancel()


async def test_pushes_and_runs_at_the_same_time_leave_whole_paths(cache: Cache) -> None:
    generator = random.Random(13)
    pushed: dict[str, int] = {}

    async def pusher(number: int) -> None:
        for _ in range(25):
            name = f"path-{generator.randrange(12)}"
            await asyncio.sleep(generator.random() / 50)
            began = await cache.hours().now()
            await cache.push(name, {name.encode(): TreeFile(noise(200_000, name)), b"same": TreeFile(noise(90_000, name[:6]))})
            pushed[name] = max(began, pushed.get(name, 0))

    async def runner() -> None:
        while True:
            await cache.run(generator.choice((0, 1, 13, 26)))
            await asyncio.sleep(0)

    running = asyncio.create_task(runner())
    await asyncio.gather(*(pusher(number) for number in range(4)))
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await cache.run()
    await cache.check_complete()
    now = await cache.hours().now()
    fresh = {name for name, when in pushed.items() if when >= now - HOURS}
    assert fresh <= await cache.names()


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("?retention=90d", "only a named cache has a retention"),
        ("?cache=one&retention=59m", "the least retention is an hour"),
        ("?cache=one&retention=soon", "'soon' is not a span of time"),
        ("?cache=one&retention=0d", "'0d' is not a span of time"),
    ],
)
async def test_what_is_no_retention_is_refused(tmp_path: Path, query: str, message: str) -> None:
    with pytest.raises(InvalidError, match=message):
        await open_store(f"local://{tmp_path}/store{query}")


async def test_uses_that_wait_are_written_when_a_cache_is_closed(cache: Cache) -> None:
    for number in range(50):
        await cache.push(f"path-{number}", TreeFile(b"%d" % number))
    assert cache.own.records is not None
    await cache.own.records.delete(await cache.records(b"used:"))
    for number in range(50):
        assert await cache.store.path_infos.get(path(f"path-{number}").output_hash)
    await cache.reopen()
    assert len(await cache.records(b"used:")) == 50


async def test_a_cache_of_a_store_that_is_only_read_keeps_all(tmp_path: Path) -> None:
    async with await open_store(f"local://{tmp_path}/store?cache=one&retention=1h"):
        pass
    async with await open_store(f"local://{tmp_path}/store?cache=one&retention=1h&read-only=1") as cache:
        assert cache.removal is None


async def test_pinned_paths_stay_with_what_they_need(cache: Cache) -> None:
    await cache.push("far", tree("far"))
    pinned = await cache.push("near", tree("near"), "far")
    await cache.push("gone", tree("gone"))
    assert cache.own.records is not None
    pins = Pins(cache.own.records, lambda: cache.clock)
    await pins.put("v1", [pinned.store_path.output_hash])
    await cache.run(HOURS + 1)
    await cache.run(25)
    assert await cache.names() == {"far", "near"}
    await cache.check_complete()
    await pins.remove("v1")
    await cache.run()
    assert await cache.names() == set()
