"""The checkpoint, and the journal that is replayed behind it: what each rule of docs/design/local.md forbids."""

from __future__ import annotations

import asyncio
import errno
import os
import random
import shutil
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.backends.local.simulated_disk import SimulatedDisk
from tests.backends.local.store_files import checkpoint_of, let_another_boot_follow, make_index_anew
from tvix_store.backends.local import checkpointer, open_store, staging
from tvix_store.backends.local.checkpointer import Checkpointer
from tvix_store.backends.local.contents import Written, new_records
from tvix_store.backends.local.damage import Forget
from tvix_store.backends.local.durability import FILE as FAILED
from tvix_store.backends.local.durability import Durability, SyncFailedError
from tvix_store.backends.local.engine import Engine
from tvix_store.backends.local.own_index import OwnIndex
from tvix_store.backends.local.packs import Place
from tvix_store.backends.local.records import Kind
from tvix_store.backends.local.requests import Commit, NameContents
from tvix_store.errors import CorruptError, UnavailableError
from tvix_store.model.digest import Digest
from tvix_store.services.store import Store
from tvix_store.testing.content import collect, noise, pieces, stream

SMALL, LARGE = noise(2_000, "small"), noise(1_000_000, "large")


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with await open_store(tmp_path / "store", chunk_average=4096) as store:
        yield store


def engine_of(store: Store) -> Engine:
    return store.blobs._engine  # type: ignore[attr-defined, no-any-return]


def checkpointer_of(engine: Engine) -> Checkpointer:
    assert isinstance(engine._opened, OwnIndex)
    return engine._opened.checkpointer


def flip(directory: Path, place: Place) -> None:
    with (directory / f"packs/{place.pack:08x}.pack").open("r+b") as pack:
        pack.seek(place.offset)
        byte = pack.read(1)
        pack.seek(place.offset)
        pack.write(bytes([byte[0] ^ 1]))


async def find_damage(store: Store, directory: Path) -> Place:
    """Damage the chunk SMALL, and let a reader find it; where it lay."""
    place = engine_of(store).index.chunk(Digest.of(SMALL).raw)
    assert place is not None
    flip(directory, place)
    with pytest.raises(CorruptError):
        await collect(store.blobs.read(Digest.of(SMALL)))
    await store.sync()
    return place


@pytest.mark.parametrize("kind", ["_fdatasync", "_fsync", "_sync_database"])
async def test_a_failed_sync_of_any_kind_stops_all_writes_until_the_store_is_repaired(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    directory = tmp_path / "store"

    def fail(*_: Any) -> None:
        raise OSError(errno.EIO, "Input/output error")

    store = await open_store(directory)
    assert store.records is not None
    await store.blobs.put_many([SMALL])
    await store.records.put({b"before": b"it"})
    monkeypatch.setattr(Durability, kind, fail)
    if kind == "_fdatasync":
        with pytest.raises(UnavailableError):
            await store.records.put({b"durable": b"record"})
    else:
        with pytest.raises(SyncFailedError):
            await asyncio.to_thread(checkpointer_of(engine_of(store)).make)
    monkeypatch.undo()  # Linux tells of it once
    with pytest.raises(SyncFailedError):  # as in another process
        Durability(directory).check()
    for _ in range(2):
        with pytest.raises(UnavailableError):
            await store.blobs.put_many([noise(100, "more")])
    await store.close()
    async with await open_store(directory) as store:
        Durability(directory).check()
        assert await store.blobs.get_many([Digest.of(SMALL)]) == [SMALL]
        await store.blobs.put_many([noise(100, "more")])


@pytest.mark.parametrize("how", ["anew", "replayed"])
async def test_what_was_forgotten_stays_forgotten(tmp_path: Path, how: str) -> None:
    directory = tmp_path / "store"
    async with await open_store(directory) as store:
        await store.blobs.put_many([SMALL])
        await asyncio.to_thread(checkpointer_of(engine_of(store)).make)
        await find_damage(store, directory)
        generation = await store.epoch()
        if how == "replayed":
            shutil.copytree(directory, tmp_path / "cut")
    if how == "anew":
        make_index_anew(directory)
    else:
        directory = tmp_path / "cut"
        let_another_boot_follow(directory)
    async with await open_store(directory) as store:
        assert await store.blobs.missing([Digest.of(SMALL)]) == {Digest.of(SMALL)}
        assert await store.epoch() not in (0, generation)
        await store.blobs.put_many([SMALL])
    make_index_anew(directory)
    async with await open_store(directory) as store:
        assert await store.blobs.get_many([Digest.of(SMALL)]) == [SMALL]


@pytest.mark.parametrize("is_put_again", [False, True])
async def test_a_chunk_list_that_was_forgotten_stays_forgotten_until_its_blob_is_put_again(
    tmp_path: Path, is_put_again: bool
) -> None:
    directory = tmp_path / "store"
    async with await open_store(directory, chunk_average=4096) as store:
        chunk = (await put_cut(store, LARGE))[3]
        await asyncio.to_thread(checkpointer_of(engine_of(store)).make)
        place = engine_of(store).index.chunk(chunk)
        assert place is not None
        flip(directory, place)
        with pytest.raises(CorruptError):
            await collect(store.blobs.read(Digest.of(LARGE)))
        await store.sync()
        if is_put_again:
            await put_cut(store, LARGE)
        shutil.copytree(directory, tmp_path / "cut")
    let_another_boot_follow(tmp_path / "cut")
    async with await open_store(tmp_path / "cut") as store:
        if is_put_again:
            assert await collect(store.blobs.read(Digest.of(LARGE))) == LARGE
        else:
            assert await store.blobs.missing([Digest.of(LARGE)]) == {Digest.of(LARGE)}


@pytest.mark.parametrize("way", ["another boot", "a failed sync"])
async def test_a_replay_from_a_checkpoint_trusts_nothing_that_it_reads(tmp_path: Path, way: str) -> None:
    """Not even what lies before a durable entry: the sync between them may be the one that failed."""
    directory = tmp_path / "store"
    async with await open_store(directory) as store:
        assert store.records is not None
        await store.records.put({b"first": b""})
        await asyncio.to_thread(checkpointer_of(engine_of(store)).make)
        await store.blobs.put_many([SMALL, b"another"])
        await store.records.put({b"durable": b"record"})
        place = engine_of(store).index.chunk(Digest.of(SMALL).raw)
        shutil.copytree(directory, tmp_path / "cut")
    assert place is not None
    flip(tmp_path / "cut", place)
    if way == "another boot":
        let_another_boot_follow(tmp_path / "cut")
    else:
        (tmp_path / "cut" / FAILED).write_bytes(b"")
    async with await open_store(tmp_path / "cut") as store:
        assert store.records is not None
        assert await store.records.get(b"durable") == b"record"
        assert await store.blobs.missing([Digest.of(SMALL), Digest.of(b"another")]) == {Digest.of(SMALL)}


async def test_a_list_that_is_committed_while_damage_is_looked_for_goes_with_the_damage(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The chunk is damaged; a blob that has it is put between the search for such blobs and the transaction."""
    stat = await put_cut(store, LARGE)
    chunk = stat[3]
    engine = engine_of(store)
    place = engine.index.chunk(chunk)
    assert place is not None
    apply = Forget.apply
    other = LARGE + noise(100_000, "behind it")
    contents, _ = store.blobs._cut_all([other[:800_000]])  # type: ignore[attr-defined]

    def put_meanwhile(forget: Forget, commit: Commit) -> object:
        places = engine.spare_packs.take()
        places.next_pack()
        written = places.append(new_records(contents, 3, 1))
        places.keep()
        commit.name_contents(Written(c.kind, c.key, c.blob_size, at) for c, at in zip(contents, written, strict=True))
        commit.name_pack(places.number, places.size)
        engine.spare_packs.give_back(places)
        return apply(forget, commit)

    monkeypatch.setattr(Forget, "apply", put_meanwhile)
    flip(tmp_path / "store", place)
    with pytest.raises(CorruptError):
        await collect(store.blobs.read(Digest.of(LARGE)))
    await store.sync()
    both = {Digest.of(LARGE), Digest.of(other[:800_000])}
    assert await store.blobs.missing(list(both)) == both


async def put_cut(store: Store, blob: bytes) -> list[bytes]:
    """The keys of the chunks of a blob that is put."""
    digest = await store.blobs.put(pieces(blob, 100_000))
    stat = await store.blobs.stat(digest, chunks=True)
    assert stat is not None
    return [chunk.digest.raw for chunk in stat.chunks]


def drop_chunk(store: Store, chunk: bytes) -> None:
    """Take a chunk out of the index alone."""
    index = engine_of(store).index
    with index.writing() as txn:
        place = index.chunk(chunk)
        assert place is not None
        index.drop_content(txn, Kind.CHUNK, chunk, place)


async def test_a_list_that_names_a_missing_chunk_is_forgotten_by_who_misses_it(store: Store) -> None:
    chunk = (await put_cut(store, LARGE))[3]
    drop_chunk(store, chunk)
    with pytest.raises(CorruptError, match="missing"):
        await collect(store.blobs.read(Digest.of(LARGE)))
    await store.sync()
    assert await store.blobs.missing([Digest.of(LARGE)]) == {Digest.of(LARGE)}
    await store.blobs.put(stream([LARGE]))
    assert await collect(store.blobs.read(Digest.of(LARGE))) == LARGE


async def test_a_cut_between_the_batches_of_an_acceptance_takes_nothing_that_follows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkpoint is made after each batch; what is named later is replayed from there."""
    monkeypatch.setattr(staging, "_NAMED_AT_ONCE", 7)
    directory, disk, generator = tmp_path / "store", SimulatedDisk(tmp_path / "disk"), random.Random(3)
    apply = NameContents.apply
    batches = 0
    async with await open_store(directory, chunk_average=4096, durability=disk) as store:
        engine = engine_of(store)

        def apply_and_count(request: NameContents, commit: Commit) -> object:
            nonlocal batches
            batches += 1
            if batches == 3:  # the two before are in a checkpoint, this one and those behind are not
                checkpoints.append(asyncio.run_coroutine_threadsafe(asyncio.to_thread(checkpointer_of(engine).make), loop))
            return apply(request, commit)

        loop, checkpoints = asyncio.get_running_loop(), list[Any]()
        monkeypatch.setattr(NameContents, "apply", apply_and_count)
        assert store.staging is not None
        assert store.records is not None
        stage = store.staging.begin()
        digest = await stage.blobs.put(pieces(LARGE, 50_000))
        await stage.accept()
        await stage.close()
        await asyncio.wrap_future(checkpoints[0])
        await store.records.put({b"accepted": digest.raw})
        disk.after_a_cut(directory, tmp_path / "cut", generator)
    assert batches > 5
    async with await open_store(tmp_path / "cut") as store:
        assert await collect(store.blobs.read(digest)) == LARGE


@pytest.mark.parametrize("how", ["killed", "power cut", "index lost"])
async def test_a_crash_in_the_middle_of_an_acceptance_leaves_whole_contents_and_no_half_of_a_blob(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """Before each batch is named, and before it is committed."""
    monkeypatch.setattr(staging, "_NAMED_AT_ONCE", 20)
    directory, disk, generator = tmp_path / "store", SimulatedDisk(tmp_path / "disk"), random.Random(7)
    copies: list[Path] = []

    def crash() -> None:
        copies.append(tmp_path / f"copy {len(copies)}")
        if how == "killed":
            shutil.copytree(directory, copies[-1])
        else:
            disk.after_a_cut(directory, copies[-1], generator)

    apply = NameContents.apply

    def apply_and_crash(request: NameContents, commit: Commit) -> object:
        crash()
        result = apply(request, commit)
        crash()
        return result

    monkeypatch.setattr(NameContents, "apply", apply_and_crash)
    async with await open_store(directory, chunk_average=4096, durability=disk) as store:
        assert store.staging is not None
        before = await store.blobs.put(pieces(LARGE[:300_000], 50_000))
        assert store.records is not None
        await store.records.put({b"before": before.raw})
        stage = store.staging.begin()
        digest = await stage.blobs.put(pieces(LARGE, 50_000))
        await stage.accept()
        await stage.close()
    assert len(copies) > 10
    monkeypatch.setattr(NameContents, "apply", apply)
    for copy in copies:
        if how == "index lost":
            shutil.rmtree(copy / "index")
        async with await open_store(copy) as store:
            assert await collect(store.blobs.read(before)) == LARGE[:300_000]
            engine = engine_of(store)
            with engine.index.reading() as txn:
                chunks = list(engine.index.contents(txn, Kind.CHUNK))
            for chunk in chunks:
                engine.payload(chunk.key, chunk.place)
            if not await store.blobs.missing([digest]):
                assert await collect(store.blobs.read(digest)) == LARGE
            assert await store.blobs.put(pieces(LARGE, 50_000)) == digest
            assert await collect(store.blobs.read(digest)) == LARGE


async def test_the_number_of_a_pack_is_not_used_twice(tmp_path: Path) -> None:
    directory = tmp_path / "store"
    async with await open_store(directory) as store:
        await store.blobs.put_many([SMALL])
    for number in range(1, 4):
        assert os.listdir(directory / "packs") == [f"{number:08x}.pack"]
        (directory / f"packs/{number:08x}.pack").unlink()
        async with await open_store(directory):
            pass
        for lost in directory.glob("*.lost"):
            lost.unlink()  # to do without
        async with await open_store(directory) as store:
            await store.blobs.put_many([SMALL])


async def test_a_checkpoint_is_never_replaced_by_an_older_one(tmp_path: Path) -> None:
    """One process is slow to sync; another one, which began later, makes a checkpoint meanwhile."""
    async with await open_store(tmp_path / "store") as store:
        await store.blobs.put_many([SMALL])
        engine = engine_of(store)
        first = checkpointer_of(engine)
        syncs, goes_on = threading.Event(), threading.Event()

        def sync_slowly(_pack: int) -> None:
            syncs.set()
            assert goes_on.wait(20)

        slow = Checkpointer(tmp_path / "store", engine.index, sync_slowly, Durability(tmp_path / "store"))
        engine.index.guard = first._committing
        making = asyncio.create_task(asyncio.to_thread(slow.make))
        await asyncio.to_thread(syncs.wait, 20)
        await store.blobs.put_many([noise(100, "more")])
        last = engine.index.last_transaction()
        newer = asyncio.create_task(asyncio.to_thread(first.make))
        await asyncio.wait([newer], timeout=0.3)  # by itself, it takes a few ms
        goes_on.set()
        await asyncio.gather(making, newer)
        assert checkpoint_of(tmp_path / "store").meta.transaction >= last
        slow.close()


async def test_a_process_that_rests_gives_its_pin_up_and_takes_one_before_it_commits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("_IDLE_AFTER", "_LET_GO_AFTER", "_TICK"):
        monkeypatch.setattr(checkpointer, name, 0.01)
    async with await open_store(tmp_path / "store") as store:
        own = checkpointer_of(engine_of(store))
        for number in range(3):
            await store.blobs.put_many([noise(100, f"{number}")])
            for _ in range(500):
                await asyncio.sleep(0.01)
                if own._pin is None:
                    break
            assert own._pin is None
            with engine_of(store).index.writing():
                assert own._pin is not None


_OTHER = """
import asyncio, os, sys
from pathlib import Path
from tvix_store.backends.local import checkpointer, open_store
checkpointer._ROWS = checkpointer._SECONDS = checkpointer._IDLE_AFTER = checkpointer._GROWN = 1 << 60
async def main():
    store = await open_store(Path(sys.argv[1]))
    await store.blobs.put_many([b"the first commit makes a checkpoint"])
    await asyncio.sleep(1)
    await store.blobs.put_many([b"%d" % n for n in range(500)])
    os._exit(0)
asyncio.run(main())
"""


async def test_rows_of_other_processes_make_a_checkpoint_due(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_SECONDS", "_IDLE_AFTER", "_GROWN", "_BYTES"):
        monkeypatch.setattr(checkpointer, name, 1 << 60)
    monkeypatch.setattr(checkpointer, "_ROWS", 300)
    async with await open_store(tmp_path / "store") as store:
        await store.blobs.put_many([SMALL])
        other = await asyncio.create_subprocess_exec(sys.executable, "-c", _OTHER, tmp_path / "store")
        assert await other.wait() == 0
        await store.blobs.put_many([b"one row of ours"])
        last = engine_of(store).index.last_transaction()
        async with asyncio.timeout(20):
            while checkpoint_of(tmp_path / "store").meta.transaction < last:  # noqa: ASYNC110 - it is made by a thread
                await asyncio.sleep(0.05)
        # And what a checkpoint of another covers is not counted any more.
        checkpoint = checkpointer_of(engine_of(store))
        checkpoint._all_rows_at -= 400
        checkpoint._seen -= 1
        assert checkpoint._rows_behind() < 300
