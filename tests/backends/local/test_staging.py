"""What is staged lies in packs of its own: taken back, its bytes are gone; accepted, it is as safe as what was put."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
from pathlib import Path

import pytest

from tests.backends.local.committer_watch import fill_disk
from tvix_store.backends.local import open_store, staging
from tvix_store.backends.local.pack_writer import PackWriter
from tvix_store.backends.local.records import MAGIC, Kind
from tvix_store.backends.local.requests import Commit, NamePack
from tvix_store.errors import ExhaustedError, UnavailableError
from tvix_store.model.digest import Digest
from tvix_store.model.nodes import DirectoryNode
from tvix_store.services.store import Store
from tvix_store.testing.content import noise, pieces
from tvix_store.testing.contracts.staging import STAGED, begun, is_absent, is_whole, stage_tree
from tvix_store.testing.trees import Tree, TreeFile


def pack_bytes(store: Path) -> int:
    return sum(path.stat().st_size for path in (store / "packs").iterdir())


def tree(seed: str, size: int = 2_000_000) -> Tree:
    return {b"file": TreeFile(noise(size, seed)), b"small": TreeFile(seed.encode())}


async def test_bytes_that_are_taken_back_are_gone(tmp_path: Path) -> None:
    async with await open_store(tmp_path / "store") as store:
        sizes = []
        for number in range(4):
            async with begun(store) as stage:
                await stage_tree(store, stage, tree(f"refused {number}"))
                sizes.append(pack_bytes(tmp_path / "store"))
            sizes.append(pack_bytes(tmp_path / "store"))
        assert all(size > 2_000_000 for size in sizes[::2])
        assert all(size < 1000 for size in sizes[1::2])
        assert len(os.listdir(tmp_path / "store/packs")) == 1  # each went on with the pack of the one before


async def test_the_same_content_at_once_is_kept_once(tmp_path: Path) -> None:
    async def push(store: Store) -> None:
        async with begun(store) as stage:
            await stage_tree(store, stage, STAGED)
            await asyncio.sleep(0.05)
            await stage.accept()

    async with await open_store(tmp_path / "store") as store:
        await asyncio.gather(*(push(store) for _ in range(8)))
        assert pack_bytes(tmp_path / "store") < 3_700_000


async def test_packs_of_stages_are_gone_on_with(tmp_path: Path) -> None:
    for round_ in range(3):
        async with await open_store(tmp_path / "store") as store:

            async def push(number: int, store: Store = store, round_: int = round_) -> None:
                async with begun(store) as stage:
                    await stage_tree(store, stage, tree(f"{round_} {number}", 400_000))
                    await stage.accept()

            await asyncio.gather(*map(push, range(12)))
    assert len(os.listdir(tmp_path / "store/packs")) <= 13  # the committer's, and one for each


async def test_it_outlives_the_index(tmp_path: Path) -> None:
    async with await open_store(tmp_path / "store", pack_size=1 << 20) as store, begun(store) as stage:
        node = await stage_tree(store, stage, STAGED)
        await stage.accept()
    assert len(os.listdir(tmp_path / "store/packs")) > 2
    shutil.rmtree(tmp_path / "store/index")
    async with await open_store(tmp_path / "store") as store:
        assert await is_whole(store, node, STAGED)


async def test_what_a_killed_process_had_staged_is_cut_off(tmp_path: Path) -> None:
    async with await open_store(tmp_path / "store") as store, begun(store) as stage:
        node = await stage_tree(store, stage, STAGED)
        shutil.copytree(tmp_path / "store", tmp_path / "killed")  # as it is left when the process dies here
    assert pack_bytes(tmp_path / "killed") > 2_000_000
    async with await open_store(tmp_path / "killed") as store:
        assert await is_absent(store, node)
        async with begun(store) as stage:
            await stage_tree(store, stage, tree("after that", 300_000))
            await stage.accept()
        assert await is_absent(store, node)
    assert pack_bytes(tmp_path / "killed") < 1_000_000


@pytest.mark.parametrize("round_", range(3))
async def test_what_was_staged_and_not_accepted_stays_away_when_the_index_is_made_anew(tmp_path: Path, round_: int) -> None:
    """Behind nothing, behind what was accepted in the same pack, and behind what a stage of another process was."""
    accepted = []
    for number in range(round_):
        async with await open_store(tmp_path / "store") as store, begun(store) as stage:
            accepted.append((await stage_tree(store, stage, tree(f"accepted {number}")), tree(f"accepted {number}")))
            await stage.accept()
    async with await open_store(tmp_path / "store") as store:
        async with begun(store) as stage:
            accepted.append((await stage_tree(store, stage, STAGED), STAGED))
            await stage.accept()
        async with begun(store) as stage:
            node = await stage_tree(store, stage, tree("never accepted"))
            assert isinstance(node, DirectoryNode)
            shutil.copytree(tmp_path / "store", tmp_path / "killed")  # as it is left when the process dies here
    shutil.rmtree(tmp_path / "killed/index")
    never = {Digest.of(b"never accepted"), Digest.of(noise(2_000_000, "never accepted"))}
    async with await open_store(tmp_path / "killed") as store:
        assert await store.blobs.missing(list(never)) == never
        assert await store.directories.get(node.digest) is None
        for there, content in accepted:
            assert await is_whole(store, there, content)
        async with begun(store) as stage:
            accepted.append((await stage_tree(store, stage, tree("after that", 300_000)), tree("after that", 300_000)))
            await stage.accept()
        await store.blobs.put_many([b"and by the committer"])
    shutil.rmtree(tmp_path / "killed/index")
    async with await open_store(tmp_path / "killed") as store:
        assert await store.blobs.missing(list(never)) == never
        assert await store.blobs.get_many([Digest.of(b"and by the committer")]) == [b"and by the committer"]
        for there, content in accepted:
            assert await is_whole(store, there, content)


@pytest.mark.parametrize("goes_on", ["stage", "committer"])
async def test_what_was_accepted_does_not_hang_on_one_record(tmp_path: Path, goes_on: str) -> None:
    """The record that a stage was accepted is damaged; who went on with the pack has made sure of it."""
    async with await open_store(tmp_path / "store") as store, begun(store) as stage:
        node = await stage_tree(store, stage, STAGED)
        await stage.accept()
    async with await open_store(tmp_path / "store") as store:
        if goes_on == "committer":
            await store.blobs.put_many([b"more"])
        else:
            async with begun(store) as stage:
                await stage_tree(store, stage, tree("more"))
                await stage.accept()
    [pack] = (tmp_path / "store/packs").iterdir()
    content = bytearray(pack.read_bytes())
    content[content.index(MAGIC + bytes([Kind.COMMITTED])) + 5] ^= 1
    pack.write_bytes(content)
    shutil.rmtree(tmp_path / "store/index")
    async with await open_store(tmp_path / "store") as store:
        assert await is_whole(store, node, STAGED)


async def test_a_store_of_an_earlier_version_has_no_such_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PackWriter, "begin_stage", lambda writer: None)
    monkeypatch.setattr(PackWriter, "accept_stage", lambda writer: None)
    async with await open_store(tmp_path / "store") as store, begun(store) as stage:
        node = await stage_tree(store, stage, STAGED)
        await stage.accept()
    monkeypatch.undo()
    shutil.rmtree(tmp_path / "store/index")
    async with await open_store(tmp_path / "store") as store:
        assert await is_whole(store, node, STAGED)
        async with begun(store) as stage:
            more = await stage_tree(store, stage, tree("more"))
            await stage.accept()
    shutil.rmtree(tmp_path / "store/index")
    async with await open_store(tmp_path / "store") as store:
        assert await is_whole(store, node, STAGED)
        assert await is_whole(store, more, tree("more"))


async def test_a_long_journal_goes_to_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(staging, "_JOURNAL_BYTES", 1000)
    monkeypatch.setattr(staging, "_NAMED_AT_ONCE", 7)
    monkeypatch.setattr(staging, "_SEEN", 10)
    async with await open_store(tmp_path / "store", chunk_average=4096) as store:
        async with begun(store) as stage:
            node = await stage_tree(store, stage, STAGED)
            await stage.accept()
        assert await is_whole(store, node, STAGED)
    shutil.rmtree(tmp_path / "store/index")
    async with await open_store(tmp_path / "store") as store:
        assert await is_whole(store, node, STAGED)


async def test_a_full_disk_is_told_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with await open_store(tmp_path / "store") as store:
        with monkeypatch.context() as patched:
            fill_disk(patched, after=3)
            with pytest.raises(ExhaustedError, match="the disk is full"):
                async with begun(store) as stage:
                    await stage_tree(store, stage, STAGED)
        assert pack_bytes(tmp_path / "store") < 1000
        async with begun(store) as stage:
            node = await stage_tree(store, stage, STAGED)
            await stage.accept()
        assert await is_whole(store, node, STAGED)


async def test_a_pack_that_could_not_be_named_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: NamePack, commit: Commit) -> None:
        raise ExhaustedError("the disk is full")

    async with await open_store(tmp_path / "store") as store:
        monkeypatch.setattr(NamePack, "apply", full)
        with pytest.raises(ExhaustedError):
            async with begun(store) as stage:
                await stage_tree(store, stage, STAGED)
        monkeypatch.undo()
        async with begun(store) as stage:
            node = await stage_tree(store, stage, STAGED)
            await stage.accept()
    shutil.rmtree(tmp_path / "store/index")
    async with await open_store(tmp_path / "store") as store:
        assert await is_whole(store, node, STAGED)


async def test_nothing_comes_after_the_end(tmp_path: Path) -> None:
    async with await open_store(tmp_path / "store") as store:
        async with begun(store) as stage:
            pass
        with pytest.raises(UnavailableError, match="closed"):
            await stage.blobs.put(pieces(noise(3_000_000), 100_000))
        assert (await store.statistics.stats()).chunks == 0  # type: ignore[union-attr]


async def test_whoever_stops_waiting_for_an_acceptance_breaks_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Named or cut off: what the index names is whole, wherever the acceptance was cancelled."""
    monkeypatch.setattr(staging, "_NAMED_AT_ONCE", 2)
    generator = random.Random(5)
    async with await open_store(tmp_path / "store", chunk_average=16384) as store:

        async def push(number: int) -> None:
            async with begun(store) as stage:
                await stage_tree(store, stage, tree(f"cancelled {number}", 600_000))
                await stage.accept()

        for first in range(0, 60, 4):
            tasks = [asyncio.create_task(push(first + n)) for n in range(4)]
            await asyncio.sleep(0.02 + generator.random() * 0.05)
            for task in tasks[:3]:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            assert tasks[3].exception() is None
        engine = store.blobs._engine  # type: ignore[attr-defined]
        with engine.index.reading() as txn:
            keys = [bytes(key) for key in txn.cursor(engine.index.chunks.handle).iternext(values=False)]
        for key in keys:
            engine.payload(key, engine.index.chunk(key))  # raises where it is not there any more
        assert len(keys) > 15 * 20
        for number in range(3, 60, 4):
            async with begun(store) as stage:
                node = await stage_tree(store, stage, tree(f"cancelled {number}", 600_000))
            assert await is_whole(store, node, tree(f"cancelled {number}", 600_000))
