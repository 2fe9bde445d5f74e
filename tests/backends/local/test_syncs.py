"""What a store has on the disk itself when it says so: bytes, names and the index, after each kind of work."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.backends.local.simulated_disk import SimulatedDisk
from tests.backends.local.store_files import index_file, let_another_boot_follow
from tvix_store.backends.local import open_store, pack_syncs
from tvix_store.backends.local.durability import FILE as FAILED
from tvix_store.backends.local.engine import Engine
from tvix_store.backends.local.index_damage import FILE as DAMAGED
from tvix_store.backends.local.request_queue import RequestQueue
from tvix_store.model.digest import Digest
from tvix_store.model.nodes import FileNode
from tvix_store.model.path_info import NarFacts, PathInfo
from tvix_store.model.store_path import StorePath
from tvix_store.services.store import Store
from tvix_store.testing.content import noise, pieces
from tvix_store.testing.contracts.staging import begun

PACK_SIZE = 1 << 20
LARGE = noise(600_000, "large")


@pytest.fixture
def disk(tmp_path: Path) -> SimulatedDisk:
    return SimulatedDisk(tmp_path / "disk")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
async def store(directory: Path, disk: SimulatedDisk) -> AsyncIterator[Store]:
    async with await open_store(directory, pack_size=PACK_SIZE, durability=disk) as store:
        yield store


def unsynced(disk: SimulatedDisk, store: Path) -> set[str]:
    """But for the index: it goes back to a checkpoint."""
    return {name for name in disk.unsynced(store) if not name.startswith("index/")}


def path_info(number: int = 1) -> PathInfo:
    return PathInfo(StorePath(bytes([number]) * 20, "path"), FileNode(Digest.of(b"x"), 1), NarFacts(1, bytes(32)))


async def stage(store: Store, content: bytes) -> None:
    async with begun(store) as staged:
        await staged.blobs.put(pieces(content, 100_000))
        await staged.accept()


async def test_a_store_that_is_made_is_on_the_disk(directory: Path, disk: SimulatedDisk) -> None:
    async with await open_store(directory, durability=disk):
        assert disk.unsynced(directory) == set()
    assert disk.unsynced(directory) == set()


async def test_a_store_that_was_closed_is_on_the_disk(directory: Path, disk: SimulatedDisk) -> None:
    async with await open_store(directory, pack_size=PACK_SIZE, durability=disk) as store:
        await store.blobs.put(pieces(noise(3_000_000, "of many packs"), 100_000))
        await stage(store, LARGE)
    assert len(os.listdir(directory / "packs")) > 2
    assert disk.unsynced(directory) == set()


async def test_a_checkpoint_has_on_the_disk_what_came_since_the_last(store: Store, directory: Path, disk: SimulatedDisk) -> None:
    """Of packs that an earlier checkpoint has synced, too."""
    make = store.blobs._engine._opened.checkpointer.make  # type: ignore[attr-defined]
    for number in range(3):
        await store.blobs.put_many([noise(1000, f"{number}")])
        await stage(store, noise(600_000, f"{number}"))
        assert disk.unsynced(directory)
        await asyncio.to_thread(make)
        assert disk.unsynced(directory) == set()


@pytest.mark.parametrize("how", ["sync", "record", "path info"])
async def test_whoever_put_it_all_of_it_is_on_the_disk_before_something_durable(
    store: Store, directory: Path, disk: SimulatedDisk, how: str
) -> None:
    """The pack of the committer, those that it has filled, and those of stages."""
    assert store.records is not None
    await store.records.put({b"so that": b"the first pack is synced once"})
    await store.blobs.put(pieces(noise(1_500_000, "of the committer"), 100_000))
    await stage(store, LARGE)
    packs = set(os.listdir(directory / "packs"))
    assert len(packs) > 2
    assert unsynced(disk, directory) >= {"packs/00000001.pack"}
    match how:
        case "sync":
            await store.sync()
        case "record":
            await store.records.put({b"a": b"record"})
        case _:
            await store.path_infos.put(path_info())
    assert unsynced(disk, directory) == set()


async def test_a_path_info_comes_behind_all_that_it_may_rely_on(store: Store, directory: Path, disk: SimulatedDisk) -> None:
    """Its own entry is not in a pack yet when the packs are synced. A replay relies on that."""
    await store.blobs.put_many([b"content"])
    seen: list[bytes] = []
    sync = disk.sync

    def watch(path: Path | str) -> None:
        seen.append(Path(path).read_bytes() if os.path.isfile(path) else b"")
        sync(path)

    disk.sync = watch  # type: ignore[method-assign]
    await store.path_infos.put(path_info())
    [pack] = (directory / "packs").iterdir()
    entry = path_info().encoded
    assert [entry in each for each in seen if each.startswith(b"tvix-store pack")] == [False, True]
    assert entry in pack.read_bytes()


async def test_records_that_are_not_durable_are_synced_before_their_pack_is_left(
    store: Store, directory: Path, disk: SimulatedDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under load, when no time has come to sync them."""
    monkeypatch.setattr(pack_syncs, "_WITHIN", 3600)
    monkeypatch.setattr(RequestQueue, "is_empty", lambda _: False)
    assert store.records is not None
    await store.records.put({b"loose": b"record"}, durable=False)
    [pack] = os.listdir(directory / "packs")
    number = 0
    while len(os.listdir(directory / "packs")) < 2:
        assert f"packs/{pack}" in unsynced(disk, directory)
        await store.blobs.put_many([noise(200_000, f"{number}")])
        number += 1
    assert f"packs/{pack}" not in unsynced(disk, directory)


@pytest.mark.parametrize("harm", ["a damaged index", "another boot", "a failed sync", "a lost index"])
async def test_a_store_that_was_repaired_is_on_the_disk(
    directory: Path, disk: SimulatedDisk, caplog: pytest.LogCaptureFixture, harm: str
) -> None:
    """The marks that told of the harm are gone there too."""
    async with await open_store(directory, durability=disk) as store:
        await store.blobs.put_many([b"content"])
    match harm:
        case "a damaged index":
            (directory / DAMAGED).write_text("as the test wants it")
            disk.sync(directory)
        case "another boot":
            let_another_boot_follow(directory)
        case "a failed sync":
            (directory / FAILED).write_bytes(b"")
            disk.sync(directory)
        case _:
            index_file(directory).unlink()
    async with await open_store(directory, durability=disk) as store:
        assert unsynced(disk, directory) == set()
        assert not {DAMAGED, FAILED} & set(os.listdir(directory))
        assert ("from its packs" in caplog.text) == (harm in ("a damaged index", "a lost index"))
        assert ("went back" in caplog.text) == (harm in ("another boot", "a failed sync"))
        assert f"index/{index_file(directory).name}" not in disk.unsynced(directory)
        assert await store.blobs.get_many([Digest.of(b"content")]) == [b"content"]


@pytest.mark.parametrize("left", [0, 700_000])
async def test_a_list_of_what_was_lost_is_on_the_disk(directory: Path, disk: SimulatedDisk, left: int) -> None:
    """With what is left of the pack: nobody knows any more how much of that was there."""
    async with await open_store(directory, durability=disk) as store:
        await store.blobs.put(pieces(noise(1_000_000, "lost"), 100_000))
    [pack] = (directory / "packs").iterdir()
    os.truncate(pack, left)
    async with await open_store(directory, durability=disk):
        assert any(name.endswith(".lost") for name in os.listdir(directory))
        assert unsynced(disk, directory) <= ({f"packs/{pack.name}"} if left == 0 else set())


async def test_an_index_that_was_compacted_is_on_the_disk(directory: Path, disk: SimulatedDisk) -> None:
    store = await open_store(directory, durability=disk)
    for number in range(30):
        await store.blobs.put_many([noise(50, f"{number} {n}") for n in range(500)])
    before = index_file(directory).name
    await store.close()
    after = index_file(directory).name
    assert after != before, "it was not compacted"
    assert {name for name in disk.unsynced(directory) if before not in name} == set()
    async with await open_store(directory, durability=disk) as store:
        assert await store.blobs.missing([Digest.of(noise(50, "29 499"))]) == set()


async def test_the_store_directory_is_recorded_on_the_disk(directory: Path, disk: SimulatedDisk) -> None:
    async with await open_store(directory, durability=disk):
        pass
    settings = directory / "settings.json"
    values = json.loads(settings.read_text())
    del values["store_dir"]
    settings.write_text(json.dumps(values))
    engine = Engine.acquire(directory, {}, 0, disk)
    try:
        engine.record_store_dir("/nix/store")
        assert "store_dir" in settings.read_text()
        assert unsynced(disk, directory) == set()
    finally:
        engine.release()
