"""Power cuts: of what was not synced, any page may be lost. What was acknowledged as durable is there, and nothing half-written."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from tests.backends.local.simulated_disk import SimulatedDisk
from tests.backends.local.test_kill import check, is_linked
from tests.backends.local.writer_process import PACK_SIZE, write_for_ever
from tvix_store.backends.local import open_store
from tvix_store.backends.local.committer import Committer
from tvix_store.errors import NotFoundError
from tvix_store.services.store import Store
from tvix_store.testing.content import collect

CUTS = int(os.environ.get("TVIX_STORE_TEST_POWER_CUTS", "30"))
CUTS_OF_A_STORE = 5
WRITERS = 4
DURABLE = ("path", "signature", "records")


@asynccontextmanager
async def written(directory: Path, told: list[str], seed: str, disk: SimulatedDisk) -> AsyncIterator[list[asyncio.Task[None]]]:
    """Some writers at work on the store; what they tell is added to `told`."""

    async def write(store: Store, number: int) -> None:
        async for line in write_for_ever(store, f"{seed} {number}"):
            told.append(line)  # noqa: PERF401 - others look at it meanwhile

    async with await open_store(directory, pack_size=PACK_SIZE, durability=disk) as store:
        writers = [asyncio.create_task(write(store, number)) for number in range(WRITERS)]
        try:
            yield writers
        finally:
            for writer in writers:
                writer.cancel()
                with suppress(asyncio.CancelledError):
                    await writer


async def is_whole(store: Store, told: list[str]) -> int:
    """Look at all that there is; how many of the small trees that were put are still there."""
    async for info in store.path_infos.list():
        if info.store_path.name == "written":
            async for directory in store.directories.get_recursive(info.node.digest):  # type: ignore[union-attr]
                for node in directory.entries.values():
                    assert len(await collect(store.blobs.read(node.digest))) == node.size  # type: ignore[union-attr]
    linked = 0
    for line in [line for line in told if line.startswith("tree")]:
        _, *seed, number = line.split()
        with suppress(NotFoundError):  # a link may outlive its content: whoever follows it hears that it is not there
            linked += await is_linked(store, " ".join(seed), int(number))
    return linked


@pytest.mark.timeout(300)
@pytest.mark.parametrize("is_busy", [False, True])
async def test_a_power_cut_takes_nothing_that_was_acknowledged_as_durable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_busy: bool
) -> None:
    if is_busy:  # records that are not durable wait, as long as half a second
        monkeypatch.setattr(Committer, "_sync_records", lambda committer: None)
    generator = random.Random(11)
    durable = trees = 0
    disk = SimulatedDisk(tmp_path / "disk")
    for number in range(CUTS // CUTS_OF_A_STORE):
        told: list[str] = []
        async with written(tmp_path / f"store {number}", told, f"store {number}", disk) as writers:
            for cut in range(CUTS_OF_A_STORE):
                await asyncio.sleep(generator.random() * 0.2)
                while sum(line.startswith("tree") for line in told) <= 2 * cut:
                    assert not any(writer.done() for writer in writers)
                    await asyncio.sleep(0.01)
                before = [line for line in told if line.startswith(DURABLE)]
                copy = tmp_path / f"copy {number} {cut}"
                disk.after_a_cut(tmp_path / f"store {number}", copy, generator)
                async with await open_store(copy) as store:
                    await check(store, before)
                    trees += await is_whole(store, told)
                durable += len(before)
                shutil.rmtree(copy)
    assert durable > CUTS * 3
    assert trees > 0
