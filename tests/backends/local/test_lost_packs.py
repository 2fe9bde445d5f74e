"""Packs that are missing or cut short: what they held counts as missing, is stored anew, and comes back with them."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tvix_store.backends.local import lost_packs, open_store
from tvix_store.backends.local.durability import Durability
from tvix_store.backends.local.engine import Engine
from tvix_store.backends.local.lost_packs import LostPacks
from tvix_store.backends.local.pack_writer import PackWriter
from tvix_store.errors import ExhaustedError, NotFoundError, StoreError, UnavailableError
from tvix_store.model.digest import Digest
from tvix_store.model.nodes import FileNode
from tvix_store.model.path_info import NarFacts, PathInfo
from tvix_store.model.store_path import StorePath
from tvix_store.operations.nars.render import render_nar
from tvix_store.services.store import Store
from tvix_store.testing.content import collect, noise, put_tree, stream
from tvix_store.testing.contracts.staging import STAGED, begun, is_whole, stage_tree
from tvix_store.testing.trees import Tree, TreeFile

PACK_SIZE = 1 << 20
TREE: Tree = {b"d": {b"large": TreeFile(noise(3_000_000, "large"))}, b"small": TreeFile(noise(20_000, "small"))}
PATH = StorePath(b"o" * 20, "path")


def packs(store: Path) -> list[Path]:
    return sorted((store / "packs").iterdir())


def lost_files(store: Path) -> list[str]:
    return sorted(name for name in os.listdir(store) if name.endswith(".lost"))


async def is_healthy(store: Store) -> bool:
    try:
        await store.check()
    except UnavailableError:
        return False
    return True


async def nar(store: Store) -> bytes:
    return await collect(render_nar(store.blobs, store.directories.tree(await put_tree(store, TREE))))


@pytest.fixture
async def directory(tmp_path: Path) -> Path:
    async with await open_store(tmp_path / "store", pack_size=PACK_SIZE) as store:
        node = await put_tree(store, TREE)
        await store.path_infos.put(PathInfo(PATH, node, await store.nar.calculate(node)))
        assert store.records is not None
        await store.records.put({b"key": b"value"})
    assert len(packs(tmp_path / "store")) > 1
    return tmp_path / "store"


async def test_a_pack_that_comes_back_brings_what_it_held(directory: Path, tmp_path: Path) -> None:
    """Each pack in turn, and all of them: also chunk lists in other packs than their chunks."""
    async with await open_store(directory) as store:
        node = await put_tree(store, TREE)
        facts = await store.nar.calculate(node)
        assert store.statistics is not None
        before = await store.statistics.stats()
    everything = packs(directory)
    for lost in (*([pack] for pack in everything), everything):
        (tmp_path / "away").mkdir()
        for pack in lost:
            pack.rename(tmp_path / "away" / pack.name)
        async with await open_store(directory) as store:
            with pytest.raises(NotFoundError):
                await store.nar.calculate(node)
            assert await store.path_infos.get(PATH.output_hash) is not None
            assert store.records is not None
            assert await store.records.get(b"key") == b"value"
            assert not await is_healthy(store)
        assert len(lost_files(directory)) == 1
        for pack in lost:
            (tmp_path / "away" / pack.name).rename(pack)
        (tmp_path / "away").rmdir()
        async with await open_store(directory) as store:
            assert await store.nar.calculate(node) == facts
            assert await is_healthy(store)
            assert store.statistics is not None
            after = await store.statistics.stats()
            assert (after.chunks, after.chunked_blobs, after.directories) == (
                before.chunks,
                before.chunked_blobs,
                before.directories,
            )
            assert (after.unique_bytes, after.stored_bytes) == (before.unique_bytes, before.stored_bytes)
        assert lost_files(directory) == []


@pytest.mark.parametrize("comes_back", [True, False])
async def test_what_was_put_again_stays_where_it_is(directory: Path, tmp_path: Path, comes_back: bool) -> None:
    async with await open_store(directory) as store:
        whole = await nar(store)
    for pack in packs(directory):
        pack.rename(tmp_path / pack.name)
    numbers = {name for name in os.listdir(tmp_path) if name.endswith(".pack")}
    async with await open_store(directory) as store:
        assert not await is_healthy(store)
        assert await nar(store) == whole  # puts it first
        assert {pack.name for pack in packs(directory)}.isdisjoint(numbers)  # no number is used twice
        if not comes_back:
            assert await is_healthy(store)
    if comes_back:
        for name in numbers:
            (tmp_path / name).rename(directory / "packs" / name)
    async with await open_store(directory) as store:
        assert await is_healthy(store)
        assert await nar(store) == whole
    shutil.rmtree(directory / "index")
    async with await open_store(directory) as store:
        assert await nar(store) == whole


async def test_what_is_left_of_a_pack_that_was_cut_may_be_lost_too(directory: Path, tmp_path: Path) -> None:
    shutil.copytree(directory / "packs", tmp_path / "away")
    first, content = packs(directory)[0], noise(3_000_000, "large")
    async with await open_store(directory) as store:
        found = await store.blobs.stat(Digest.of(content), chunks=True)
        assert found is not None
        chunks = [chunk.digest for chunk in found.chunks]
    os.truncate(first, first.stat().st_size // 2)
    async with await open_store(directory) as store:
        left = set(chunks) - await store.blobs.missing(chunks)
        assert left
        assert not await is_healthy(store)
        await store.blobs.put_many([noise(100_000, "other")])
    assert first.stat().st_size < (tmp_path / "away" / first.name).stat().st_size  # nobody has written to it
    first.unlink()
    async with await open_store(directory) as store:
        gone = await store.blobs.missing(list(left))
        assert gone
        assert None not in await store.blobs.get_many(list(left - gone))  # in other packs
        assert not await is_healthy(store)
    assert lost_files(directory) == ["00000001-2.lost", "00000001.lost"]
    shutil.copy(tmp_path / "away" / first.name, first)
    async with await open_store(directory) as store:
        assert await is_healthy(store)
        assert await collect(store.blobs.read(Digest.of(content))) == content
        await store.blobs.put_many([noise(100_000, "more")])
        assert await collect(store.blobs.read(Digest.of(content))) == content
    assert first.read_bytes().startswith((tmp_path / "away" / first.name).read_bytes())


async def test_an_operator_may_do_without(directory: Path) -> None:
    packs(directory)[0].unlink()
    async with await open_store(directory) as store:
        assert not await is_healthy(store)
        [name] = lost_files(directory)
        (directory / name).unlink()
        assert await is_healthy(store)


@pytest.mark.parametrize("damage", ["is empty", "says that it is huge", "is cut short", "names a kind that does not exist"])
async def test_a_damaged_list_of_what_was_lost_keeps_nobody_from_the_store(directory: Path, tmp_path: Path, damage: str) -> None:
    lost = packs(directory)[0]
    lost.rename(tmp_path / lost.name)
    async with await open_store(directory):
        [name] = lost_files(directory)
    (tmp_path / lost.name).rename(lost)
    listed = bytearray((directory / name).read_bytes())
    rows_at = 4 + 12  # behind the number of packs, and one pack
    listed = {
        "is empty": bytearray(),
        "says that it is huge": bytearray(b"\xff\xff\xff\xff") + listed[4:],
        "is cut short": listed[:-1],
        "names a kind that does not exist": listed[:rows_at] + b"\xee" + listed[rows_at + 1 :],
    }[damage]
    (directory / name).write_bytes(listed)
    async with await open_store(directory) as store:
        assert await store.path_infos.get(PATH.output_hash) is not None
        await nar(store)
        if len(listed) > rows_at and damage != "says that it is huge":
            with pytest.raises(StoreError, match=f"{name} is damaged; remove it"):
                await store.check()
            (directory / name).unlink()
        await store.check()


def remove(pack: Path) -> None:
    pack.unlink()


def replace(pack: Path) -> None:
    """Another file of that name."""
    content = pack.read_bytes()
    pack.unlink()
    pack.write_bytes(content[:-1])


def cut(pack: Path) -> None:
    os.truncate(pack, pack.stat().st_size - 1)


@pytest.mark.parametrize("harm", [remove, replace, cut])
async def test_a_pack_that_is_lost_under_its_writer_loses_nothing_that_is_acknowledged_then(
    tmp_path: Path, harm: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lost_packs, "_LOOKING", 1.0)  # a look that takes long on a busy machine puts the next one off
    acknowledged: list[bytes] = []
    async with await open_store(tmp_path / "store") as store:
        for number in range(6):
            before = len(acknowledged)
            for content in (noise(30_000, f"{number} a"), noise(30_000, f"{number} b")):
                try:
                    await store.blobs.put_many([content])
                    acknowledged.append(content)
                except UnavailableError:
                    break
            if number == 2:
                for pack in packs(tmp_path / "store"):
                    harm(pack)
                acknowledged.clear()
            assert harm is cut or len(acknowledged) != before
    async with await open_store(tmp_path / "store") as store:
        for content in acknowledged:
            assert await store.blobs.get_many([Digest.of(content)]) == [content]


async def test_a_stage_whose_pack_was_removed_is_not_accepted(tmp_path: Path) -> None:
    async with await open_store(tmp_path / "store") as store:
        async with begun(store) as stage:
            await stage_tree(store, stage, STAGED)
            for pack in packs(tmp_path / "store"):
                pack.unlink()
            with pytest.raises(UnavailableError, match="removed while it was written"):
                await stage.accept()
        async with begun(store) as stage:
            node = await stage_tree(store, stage, STAGED)
            await stage.accept()
        assert await is_whole(store, node, STAGED)


async def test_a_writer_does_not_name_its_pack_again_that_another_process_has_found_lost(tmp_path: Path) -> None:
    directory, content = tmp_path / "store", noise(30_000)
    async with await open_store(directory) as store:
        await store.blobs.put_many([content])
        engine = Engine.acquire(directory, {})
        for pack in packs(directory):
            pack.unlink()
        writer = engine._new_writer()
        writer.next_pack()
        LostPacks(engine.index, engine.reader, directory, Durability(directory)).forget(writer)
        await asyncio.sleep(2.5)  # the committer has settled, with nobody asking for anything
        with engine.index.reading() as txn:
            assert engine.index.committed_packs(txn) == {writer.number: writer.size}
        writer.close()
        assert not await is_healthy(store)
        await store.blobs.put_many([content])
        assert await is_healthy(store)
        engine.release()


async def test_a_pack_that_is_lost_twice_has_two_lists(directory: Path, tmp_path: Path) -> None:
    lost = packs(directory)[0]
    lost.rename(tmp_path / lost.name)
    async with await open_store(directory) as store:
        [first] = lost_files(directory)
        before = (directory / first).read_bytes()
        engine = Engine.acquire(directory, {})
        with engine.index.writing() as txn:  # by its writer, just before that sees the loss
            engine.index.put_pack_sizes(txn, int(lost.stem, 16), 100_000, 0)
        writer = engine._new_writer()
        writer.next_pack()
        engine.lost_packs.forget(writer)
        writer.close()
        assert len(lost_files(directory)) == 2
        assert (directory / first).read_bytes() == before
        assert not await is_healthy(store)
        engine.release()
    (tmp_path / lost.name).rename(lost)
    async with await open_store(directory) as store:
        assert await is_healthy(store)
        node = await put_tree(store, TREE)
        assert (await store.nar.calculate(node)).size > 3_000_000
    assert lost_files(directory) == []


async def test_a_stage_whose_pack_was_cut_is_not_accepted(tmp_path: Path) -> None:
    """Though it grows again: what is appended must not hide the hole."""
    large: Tree = {b"a": TreeFile(noise(3_000_000, "staged a")), b"b": TreeFile(noise(3_000_000, "staged b"))}
    async with await open_store(tmp_path / "store") as store:
        async with begun(store) as stage:
            await stage_tree(store, stage, STAGED)
            for pack in packs(tmp_path / "store"):
                os.truncate(pack, pack.stat().st_size // 2)
            with pytest.raises(UnavailableError, match="cut short while it was written"):
                await stage_tree(store, stage, large)
        async with begun(store) as stage:
            node = await stage_tree(store, stage, large)
            await stage.accept()
        assert await is_whole(store, node, large)


async def test_where_a_loss_can_not_be_forgotten_nothing_is_acknowledged(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk, for example."""
    async with await open_store(directory) as store:
        node = await put_tree(store, TREE)
        engine = Engine.acquire(directory, {})
        packs(directory)[0].unlink()

        def full(writer: PackWriter) -> None:
            raise ExhaustedError("the disk is full")

        monkeypatch.setattr(engine.lost_packs, "forget", full)
        with pytest.raises(StoreError):
            await put_tree(store, TREE)
        with pytest.raises(ExhaustedError, match="full"):
            await store.nar.calculate(node)
        monkeypatch.undo()
        with pytest.raises(NotFoundError):
            await store.nar.calculate(node)
        assert await put_tree(store, TREE) == node
        assert (await store.nar.calculate(node)).size > 3_000_000
        engine.release()


async def test_what_an_earlier_look_has_passed_is_found_by_reading(tmp_path: Path) -> None:
    """A pack that was cut before is not watched any more; what cannot be read of it is put again all the same."""
    contents = [noise(30_000, f"{number}") for number in range(4)]
    directory = tmp_path / "store"
    async with await open_store(directory) as store:
        for content in contents:
            await store.blobs.put_many([content])
    [pack] = packs(directory)
    for left in (100_000, 70_000):
        os.truncate(pack, left)
        async with await open_store(directory) as store:
            for content in contents:
                try:
                    assert await collect(store.blobs.read(Digest.of(content))) == content
                except StoreError:
                    await store.sync()
                    await store.blobs.put(stream([content]))
                assert await collect(store.blobs.read(Digest.of(content))) == content


async def test_a_path_is_not_taken_whose_content_is_lost(directory: Path) -> None:
    async with await open_store(directory) as store:
        digest = Digest.of(noise(20_000, "small"))
        facts = NarFacts(20_112, b"n" * 32)
        await store.remember_nar(FileNode(digest, 20_000), facts, store.begin_nar())
        assert await store.nar.calculate(FileNode(digest, 20_000)) == facts
        for pack in packs(directory):
            pack.unlink()
        with pytest.raises(NotFoundError):
            await store.nar.calculate(FileNode(digest, 20_000))
        assert await store.blobs.missing([digest]) == {digest}
