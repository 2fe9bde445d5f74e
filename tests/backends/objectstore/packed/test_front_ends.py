"""Several front ends on one bucket."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis.stateful import rule
from obstore.store import MemoryStore

from tests.backends.objectstore.packed.counted_bucket import CountedBucket
from tests.backends.objectstore.packed.packed_stores import files_of, nar_of, open_packed, put_path, stage
from tvix_store.model.digest import Digest
from tvix_store.services.blobs import surely_missing
from tvix_store.services.store import Store
from tvix_store.testing.content import collect, missing, noise, pieces, put_tree, stream
from tvix_store.testing.state_machine import StoreMachine
from tvix_store.testing.trees import Tree, TreeFile, nar


class PackedMachine(StoreMachine):
    """Two front ends, each with a view of its own. Now one is asked, now the other."""

    durable = True

    def __init__(self) -> None:
        self._bucket = MemoryStore()
        self._other: Store | None = None
        super().__init__()

    async def open(self) -> Store:
        # Answers that something is missing must be of now: those of the oracle are.
        self._other = self._other or await open_packed(CountedBucket(self._bucket), self.directory / "other", fresh=0)
        return await open_packed(CountedBucket(self._bucket), self.directory / "one", fresh=0)

    @rule()
    def go_to_the_other_front_end(self) -> None:
        assert self._other is not None
        self._store, self._other = self._other, self._store

    def teardown(self) -> None:
        assert self._other is not None
        other = self._other

        async def close_other() -> None:
            await other.close()

        self._runner.run(close_other())
        super().teardown()


async def test_what_one_has_acknowledged_the_others_read_at_once(tmp_path: Path) -> None:
    store = MemoryStore()
    async with (
        await open_packed(CountedBucket(store), tmp_path / "one") as one,
        await open_packed(CountedBucket(store), tmp_path / "two") as two,
    ):
        digest = Digest.of(noise(400_000, "blob"))
        assert await two.blobs.stat(digest) is None
        for number in range(5):
            await one.blobs.put(pieces(noise(400_000, f"blob {number}"), 99_999))
            assert await collect(two.blobs.read(Digest.of(noise(400_000, f"blob {number}")))) == noise(400_000, f"blob {number}")
        info = await put_path(two, {b"a": TreeFile(b"a"), b"b": {b"c": TreeFile(noise(400_000, "blob 1"))}})
        assert await one.path_infos.get(info.store_path.output_hash) == info
        assert await one.nar.calculate(info.node) == info.nar
        assert await nar_of(one, info) == nar({b"a": TreeFile(b"a"), b"b": {b"c": TreeFile(noise(400_000, "blob 1"))}})


async def test_both_may_put_the_same_at_once(tmp_path: Path) -> None:
    store = MemoryStore()
    tree: Tree = {b"files": files_of(50), b"large": TreeFile(noise(900_000, "same"))}
    async with (
        await open_packed(CountedBucket(store), tmp_path / "one", pack_size=1 << 19) as one,
        await open_packed(CountedBucket(store), tmp_path / "two", pack_size=1 << 19) as two,
    ):
        nodes = await asyncio.gather(*(stage(front, tree) for front in (one, two) * 3), put_tree(one, tree), put_tree(two, tree))
        assert len(set(nodes)) == 1
        for front in (one, two):
            assert await front.blobs.get_many([Digest.of(b"x"), Digest.of(noise(100, " 0"))]) == [None, noise(100, " 0")]


async def test_strangers_who_ask_for_nonsense_cause_few_listings(tmp_path: Path) -> None:
    bucket = CountedBucket()
    async with await open_packed(bucket, tmp_path / "view") as store:
        await store.blobs.put(stream([b"one"]))
        bucket.forget()
        await asyncio.gather(*(store.blobs.stat(missing(f"{number}")) for number in range(500)))
        assert bucket.counts["list commits"] <= 2


@pytest.mark.parametrize("skew", [-86_400, 86_400], ids=["slow", "fast"])
async def test_a_writer_with_a_wrong_clock_is_seen_and_hides_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, skew: float
) -> None:
    store = MemoryStore()
    async with (
        await open_packed(CountedBucket(store), tmp_path / "one") as one,
        await open_packed(CountedBucket(store), tmp_path / "two") as two,
        await open_packed(CountedBucket(store), tmp_path / "three") as three,
    ):
        await one.blobs.put(stream([b"one"]))
        assert not await two.blobs.missing([Digest.of(b"one")])
        now = time.time
        with monkeypatch.context() as patched:
            patched.setattr(time, "time", lambda: now() + skew)
            await two.blobs.put(stream([b"two"]))
        assert await collect(one.blobs.read(Digest.of(b"two"))) == b"two"
        await three.blobs.put(stream([b"three"]))  # it has listed nothing yet
        for front in (one, two):
            assert await collect(front.blobs.read(Digest.of(b"three"))) == b"three"


async def test_who_has_put_before_it_listed_knows_what_is_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryStore()
    now = time.time
    with monkeypatch.context() as patched:
        patched.setattr(time, "time", lambda: now() - 86_400)
        async with await open_packed(CountedBucket(store), tmp_path / "one") as one:
            await one.blobs.put(stream([b"old"]))
    async with await open_packed(CountedBucket(store), tmp_path / "two") as two:
        await two.blobs.put(stream([b"new"]))
        assert await collect(two.blobs.read(Digest.of(b"old"))) == b"old"


async def test_who_has_listed_nothing_and_whose_clock_is_slow_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryStore()
    async with (
        await open_packed(CountedBucket(store), tmp_path / "one") as one,
        await open_packed(CountedBucket(store), tmp_path / "two") as two,
    ):
        await one.blobs.put(stream([b"one"]))
        assert await one.blobs.missing([Digest.of(b"two")])
        now = time.time
        with monkeypatch.context() as patched:
            patched.setattr(time, "time", lambda: now() - 7200)
            await two.blobs.put(stream([b"two"]))
        assert await collect(one.blobs.read(Digest.of(b"two"))) == b"two"


async def test_a_commit_that_was_under_way_for_long_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryStore()
    slow = _SlowBucket(store, monkeypatch)
    async with (
        await open_packed(slow, tmp_path / "slow") as two,
        await open_packed(CountedBucket(store), tmp_path / "one") as one,
    ):
        slow.seconds = [1200.0]
        await two.blobs.put(stream([b"slow"]))
        await one.blobs.put(stream([b"one"]))
        assert slow.counts["commits"] == 2  # once more, under a key of now
        assert await collect(one.blobs.read(Digest.of(b"slow"))) == b"slow"


@pytest.mark.parametrize("time_of_it", ["ffffffffffff", "7fffffffffff"])
async def test_a_key_that_somebody_has_made_up_hides_nothing(tmp_path: Path, time_of_it: str) -> None:
    bucket = CountedBucket()
    await bucket.put(f"commits/{time_of_it}-00000003-{'0' * 16}", b"xyz")
    async with (
        await open_packed(bucket, tmp_path / "one") as one,
        await open_packed(bucket, tmp_path / "two") as two,
    ):
        assert len(await one.blobs.missing([Digest.of(b"one"), Digest.of(b"two")])) == 2
        for blob in (b"one", b"two"):
            await one.blobs.put(stream([blob]))
            assert await collect(two.blobs.read(Digest.of(blob))) == blob


class _SlowBucket(CountedBucket):
    """A bucket whose next commits take some seconds each, by a clock that is put on."""

    def __init__(self, store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(store)
        self.seconds: list[float] = []
        self._late = 0.0
        clock = time.clock_gettime
        monkeypatch.setattr(time, "clock_gettime", lambda which: clock(which) + self._late)

    async def put(self, key: str, data: bytes | memoryview) -> None:
        await super().put(key, data)
        if key.startswith("commits/") and self.seconds:
            self._late += self.seconds.pop()


TestPacked = PackedMachine.TestCase
TestPacked.settings = settings(max_examples=8, stateful_step_count=20, deadline=None)


async def test_an_answer_that_something_is_missing_may_be_old_but_not_where_it_would_do_harm(tmp_path: Path) -> None:
    bucket = MemoryStore()
    async with (
        await open_packed(CountedBucket(bucket), tmp_path / "one") as one,
        await open_packed(CountedBucket(bucket), tmp_path / "other", fresh=60) as other,
    ):
        nowhere = Digest.of(b"nowhere")
        assert await other.blobs.missing([nowhere]) == {nowhere}
        digests = await one.blobs.put_many([noise(1000, str(number)) for number in range(5)])
        assert await other.blobs.missing([nowhere, *digests]) == {nowhere, *digests}
        assert await surely_missing(other.blobs, [*digests, nowhere]) == {nowhere}
        assert await other.blobs.missing(digests) == set()
        digests = await one.blobs.put_many([noise(1000, str(number)) for number in range(5, 10)])
        assert await surely_missing(other.blobs, digests) == set()
