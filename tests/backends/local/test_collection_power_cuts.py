"""Power cuts at every write and sync of collections, and at every removal of a pack: paths stay whole, and removed ones removed."""

from __future__ import annotations

import os
import random
import shutil
import threading
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.backends.local.collected_history import Known, history, looked_at, small_packs, small_steps
from tests.backends.local.simulated_disk import NoSyncs, SimulatedDisk
from tests.backends.local.test_collection import GRACE, collect_garbage, is_whole
from tvix_store.backends.local import checkpointer, open_store
from tvix_store.backends.local.pack_writer import PackWriter
from tvix_store.backends.local.packs import Place
from tvix_store.backends.local.records import NewRecord

CUTS = int(os.environ.get("TVIX_STORE_TEST_COLLECTION_CUTS", "0"))
"""At each write, sync and removal; 0 stands for one at every other of them."""


@pytest.fixture(autouse=True)
def steps() -> Iterator[None]:
    with small_steps():
        yield


@pytest.mark.timeout(36_000)
async def test_a_cut_at_every_write_of_a_collection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"_IDLE_AFTER": 0.01, "_TICK": 0.005, "_REST": 0.0}.items():
        monkeypatch.setattr(checkpointer, name, value)
    directory, known, generator = tmp_path / "store", Known(), random.Random(5)
    disk = SimulatedDisk(tmp_path / "disk")
    one_at_a_time = threading.Lock()
    events = states = unlinked = paths = 0
    failures: list[str] = []
    kept: list[tuple[Path, Known]] = []

    def cut() -> None:
        nonlocal events, states, paths
        with one_at_a_time:
            events += 1
            for _ in range(CUTS or events % 2):
                before = known.copy()
                copy = tmp_path / f"copy {states}"
                states += 1
                disk.after_a_cut(directory, copy, generator)
                before = before.still(known.copy())  # others go on meanwhile
                paths += len(before.there)
                try:
                    if (copy / "settings.json").exists() or before.there:
                        looked_at(copy, before, NoSyncs)
                    if states % 20 == 0 and before.there:
                        kept.append((copy, before))
                    else:
                        shutil.rmtree(copy)
                except Exception:  # noqa: BLE001 - in a thread of the store, which would take it for its own
                    failures.append(f"{copy}: {traceback.format_exc()}")

    sync, append, unlink = disk.sync, PackWriter.append, os.unlink

    def sync_and_cut(path: Path | str) -> None:
        sync(path)
        cut()

    def append_and_cut(writer: PackWriter, records: Sequence[NewRecord]) -> list[Place]:
        places = append(writer, records)
        if writer._directory == directory / "packs":
            cut()
        return places

    def unlink_and_cut(path: str | Path, **options: int) -> None:
        nonlocal unlinked
        unlink(path, **options)
        if Path(path).parent == directory / "packs" and Path(path).suffix == ".pack":
            unlinked += 1
            cut()

    with monkeypatch.context() as patch:
        patch.setattr(disk, "sync", sync_and_cut)
        patch.setattr(PackWriter, "append", append_and_cut)
        patch.setattr(os, "unlink", unlink_and_cut)
        async with await small_packs(directory, disk) as store:
            await history(store, known)
    assert not failures, failures[0]
    assert unlinked >= 3
    print(f"{states} states, {unlinked} packs removed: {paths} paths to be there, 0 lost, 0 removed ones back")
    for copy, before in kept:
        async with await open_store(copy, durability=NoSyncs) as store:
            for later in (8 * GRACE, 10 * GRACE):
                await collect_garbage(store, later=later)
            for info in before.there.values():
                assert await is_whole(store, info)
        looked_at(copy, before)
