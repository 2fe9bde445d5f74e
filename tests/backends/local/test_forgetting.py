"""What is found damaged is forgotten, so that putting it again heals the store."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tvix_store.backends.local import open_store
from tvix_store.backends.local.engine import Engine
from tvix_store.backends.local.pack_reader import PackReader
from tvix_store.backends.local.packs import Place
from tvix_store.errors import CorruptError, NotFoundError, UnavailableError
from tvix_store.model.digest import Digest
from tvix_store.model.directory import Directory
from tvix_store.model.nodes import DirectoryNode
from tvix_store.operations.nars.pass_through import PlannedNars
from tvix_store.operations.nars.render import render_nar
from tvix_store.services.statistics import Stats
from tvix_store.services.store import Store
from tvix_store.testing.content import collect, noise, put_tree, stream
from tvix_store.testing.contracts.staging import begun, is_whole, stage_tree
from tvix_store.testing.trees import Tree, TreeFile

SMALL = noise(20_000, "small")
LARGE = noise(3_000_000, "large")
TREE: Tree = {b"d": {b"large": TreeFile(LARGE)}, b"small": TreeFile(SMALL)}


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with await open_store(tmp_path / "store") as store:
        yield store


def damage(directory: Path, content: bytes) -> None:
    """Flip a bit of the first place where `content` lies as it is, in a pack whose size stays."""
    [pack] = (directory / "store" / "packs").iterdir()
    at = pack.read_bytes().index(content)
    with pack.open("r+b") as file:
        file.seek(at)
        file.write(bytes([content[0] ^ 1]))


async def stats(store: Store) -> Stats:
    assert store.statistics is not None
    await store.sync()  # behind whatever the committer was asked for before
    return await store.statistics.stats()


async def read_in_vain(store: Store, blob: bytes) -> None:
    with pytest.raises(CorruptError, match="is damaged"):
        await collect(store.blobs.read(Digest.of(blob)))
    await store.sync()


async def test_a_damaged_chunk_is_stored_anew_when_it_is_put_again(store: Store, tmp_path: Path) -> None:
    await store.blobs.put_many([SMALL, b"another"])
    before = await stats(store)
    damage(tmp_path, SMALL)
    await store.blobs.put_many([SMALL])
    await read_in_vain(store, SMALL)
    assert await store.blobs.stat(Digest.of(SMALL)) is None
    assert await store.blobs.missing([Digest.of(SMALL), Digest.of(b"another")]) == {Digest.of(SMALL)}
    assert (await stats(store)).unique_bytes == before.unique_bytes - len(SMALL)
    await store.blobs.put_many([SMALL])
    assert await collect(store.blobs.read(Digest.of(SMALL))) == SMALL
    after = await stats(store)
    assert (after.chunks, after.unique_bytes, after.stored_bytes) == (before.chunks, before.unique_bytes, before.stored_bytes)


def failing_to_read_the_list_of(blob: bytes, store_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the disk fail to give the chunk list of a blob."""
    engine = Engine.acquire(store_directory, {})
    try:
        places = engine.index.chunk_list_places(Digest.of(blob).raw)
    finally:
        engine.release()
    read_checked = PackReader.read_checked

    def fail(self: PackReader, place: Place) -> bytes:
        if place in places:
            raise UnavailableError("the disk fails")
        return read_checked(self, place)

    monkeypatch.setattr(PackReader, "read_checked", fail)


async def test_a_list_that_the_disk_does_not_give_keeps_no_damage_from_being_forgotten(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other, third = noise(2_000_000, "other"), noise(2_000_000, "third")
    for blob in (LARGE, other, third):
        await store.blobs.put(stream([blob]))
    failing_to_read_the_list_of(other, tmp_path / "store", monkeypatch)
    damage(tmp_path, LARGE[:100])
    await read_in_vain(store, LARGE)
    # It may name the damaged chunk: nobody can tell.
    assert await store.blobs.missing([Digest.of(blob) for blob in (LARGE, other, third)]) == {Digest.of(LARGE), Digest.of(other)}


async def test_a_list_that_the_disk_does_not_give_keeps_no_store_from_being_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = noise(2_000_000, "other")
    async with await open_store(tmp_path / "store") as store:
        for blob in (LARGE, other):
            await store.blobs.put(stream([blob]))
        failing_to_read_the_list_of(other, tmp_path / "store", monkeypatch)
    shutil.rmtree(tmp_path / "store/index")
    async with await open_store(tmp_path / "store") as store:
        assert await store.blobs.missing([Digest.of(LARGE), Digest.of(other)]) == {Digest.of(other)}
        assert await collect(store.blobs.read(Digest.of(LARGE))) == LARGE


async def test_every_blob_that_is_cut_into_a_damaged_chunk_is_missing_until_it_is_put_again(store: Store, tmp_path: Path) -> None:
    longer, other = LARGE + noise(1_000_000, "more"), noise(2_000_000, "other")
    for blob in (LARGE, longer, other):
        await store.blobs.put(stream([blob]))
    damage(tmp_path, LARGE[:100])
    await read_in_vain(store, LARGE)
    assert await store.blobs.missing([Digest.of(blob) for blob in (LARGE, longer, other)]) == {Digest.of(LARGE), Digest.of(longer)}
    for blob in (LARGE, longer):
        await store.blobs.put(stream([blob]))
    for blob in (LARGE, longer, other):
        assert await collect(store.blobs.read(Digest.of(blob))) == blob


async def test_a_damaged_directory_is_stored_anew_when_it_is_put_again(store: Store, tmp_path: Path) -> None:
    directory = Directory({b"below": DirectoryNode(await store.directories.put(stream([Directory({})])), 0)})
    digest = await store.directories.put(stream([Directory({}), directory]))
    damage(tmp_path, directory.encoded)
    with pytest.raises(CorruptError):
        await store.directories.get(digest)
    await store.sync()
    assert await store.directories.get(digest) is None
    await store.directories.put(stream([Directory({}), directory]))
    assert await store.directories.get(digest) == directory


async def test_a_damaged_chunk_that_is_found_by_passing_it_on_is_forgotten(store: Store, tmp_path: Path) -> None:
    node = await put_tree(store, TREE)
    damage(tmp_path, SMALL)
    zstd = PlannedNars.of(store)
    assert zstd is not None
    plan = await zstd.plan(node)
    with pytest.raises(CorruptError):
        await collect(zstd.read(node, plan, 0, plan.size))
    await asyncio.gather(*zstd._tasks)
    await store.sync()
    assert await store.blobs.stat(Digest.of(SMALL)) is None


async def test_a_nar_with_damaged_content_is_not_known_to_be_whole(store: Store, tmp_path: Path) -> None:
    node = await put_tree(store, TREE)
    facts = await store.nar.calculate(node)
    damage(tmp_path, LARGE[:100])
    assert await store.nar.calculate(node) == facts
    await read_in_vain(store, LARGE)
    with pytest.raises(NotFoundError):
        await store.nar.calculate(node)
    assert await put_tree(store, TREE) == node
    assert await store.nar.calculate(node) == facts


async def test_what_was_put_again_outlives_the_index(tmp_path: Path) -> None:
    async with await open_store(tmp_path / "store") as store:
        node = await put_tree(store, TREE)
        nar = await collect(render_nar(store.blobs, store.directories.tree(node)))
        for content in (SMALL, LARGE[:100]):
            damage(tmp_path, content)
        await read_in_vain(store, SMALL)
        await read_in_vain(store, LARGE)
        await put_tree(store, TREE)
        assert store.records is not None
        await store.records.put({b"durable": b"so that nothing before it is looked at when the index is made anew"})
        before = await stats(store)
    shutil.rmtree(tmp_path / "store" / "index")
    async with await open_store(tmp_path / "store") as store:
        assert await collect(render_nar(store.blobs, store.directories.tree(node))) == nar
        after = await stats(store)
        assert (after.chunks, after.unique_bytes, after.stored_bytes) == (before.chunks, before.unique_bytes, before.stored_bytes)


async def test_a_damaged_chunk_list_is_stored_anew_when_its_blob_is_put_again(store: Store, tmp_path: Path) -> None:
    digest = await store.blobs.put(stream([LARGE]))
    stat = await store.blobs.stat(digest, chunks=True)
    assert stat is not None
    damage(tmp_path, stat.chunks[2].digest.raw + stat.chunks[2].size.to_bytes(4, "little"))
    with pytest.raises(CorruptError, match="is damaged"):
        await collect(store.blobs.read(digest))
    await store.sync()
    assert await store.blobs.missing([digest]) == {digest}
    assert await store.blobs.put(stream([LARGE])) == digest
    assert await collect(store.blobs.read(digest)) == LARGE


async def test_a_stage_that_rechecks_mends_all_at_once(store: Store, tmp_path: Path) -> None:
    node = await put_tree(store, TREE)
    assert isinstance(node, DirectoryNode)
    directory = await store.directories.get(node.digest)
    assert directory is not None
    stat = await store.blobs.stat(Digest.of(LARGE), chunks=True)
    assert stat is not None
    before = await stats(store)
    entry = stat.chunks[2].digest.raw + stat.chunks[2].size.to_bytes(4, "little")
    for content in (SMALL, LARGE[:100], LARGE[-100:], directory.encoded, entry):
        damage(tmp_path, content)
    async with begun(store, rechecks=True) as stage:
        assert await stage_tree(store, stage, TREE) == node
        await stage.accept()
    assert await is_whole(store, node, TREE)
    after = await stats(store)
    assert (after.chunks, after.unique_bytes, after.stored_bytes) == (before.chunks, before.unique_bytes, before.stored_bytes)


async def test_what_is_whole_or_lies_elsewhere_by_now_is_not_forgotten(store: Store, tmp_path: Path) -> None:
    await store.blobs.put_many([SMALL])
    engine = Engine.acquire(tmp_path / "store", {})
    try:
        digest = Digest.of(SMALL)
        place = engine.index.chunk(digest.raw)
        assert place is not None
        engine.forget_damaged(digest.raw, place)  # a mistake
        await store.sync()
        assert engine.index.chunk(digest.raw) == place
        damage(tmp_path, SMALL)
        await read_in_vain(store, SMALL)
        await store.blobs.put_many([SMALL])
        engine.forget_damaged(digest.raw, place)  # from somebody who read it before
        await store.sync()
        assert engine.index.chunk(digest.raw) not in (place, None)
    finally:
        engine.release()
