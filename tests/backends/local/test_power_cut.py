"""Power cuts: of what was not synced, any page may be lost. What was acknowledged as durable is there, and nothing half-written."""

from __future__ import annotations

import asyncio
import errno
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from tests.backends.local.simulated_disk import SimulatedDisk
from tests.backends.local.test_kill import check, is_linked
from tests.backends.local.writer_process import PACK_SIZE, write_for_ever
from tvix_store.backends.local import open_store
from tvix_store.backends.local.checkpointer import Checkpointer
from tvix_store.backends.local.pack_syncs import PackSyncs
from tvix_store.errors import NotFoundError, UnavailableError
from tvix_store.model.digest import Digest
from tvix_store.services.store import Store
from tvix_store.testing.content import collect

CUTS = int(os.environ.get("TVIX_STORE_TEST_POWER_CUTS", "30"))
CUTS_OF_A_STORE = 5
WRITERS = 4
PROCESSES, PROCESS_CUTS = 3, 8
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
        monkeypatch.setattr(PackSyncs, "sync_records", lambda syncs: None)
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


class Writer:
    """A process that writes to a store on a simulated disk, and what it has told so far."""

    def __init__(self, store: Path, disk: Path, seed: str) -> None:
        command = [sys.executable, "-m", "tests.backends.local.writer_process", str(store), seed, str(disk)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.told: list[str] = []
        self._reading = threading.Thread(target=self._read)
        self._reading.start()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        self._reading.join()

    @property
    def is_at_work(self) -> bool:
        return self._process.poll() is None

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            self.told.extend(line[:-1] for line in lines if line.endswith("\n"))


@pytest.mark.timeout(300)
def test_a_power_cut_takes_nothing_that_any_of_several_processes_acknowledged(tmp_path: Path) -> None:
    """Processes that write beside each other, and are killed: whatever pins the index for one is gone with it."""
    store, disk, generator = tmp_path / "store", SimulatedDisk(tmp_path / "disk"), random.Random(13)
    writers: list[Writer] = []
    durable = 0
    try:
        for cut in range(PROCESS_CUTS):
            while sum(writer.is_at_work for writer in writers) < PROCESSES:
                writers.append(Writer(store, tmp_path / "disk", f"process {len(writers)}"))
            told = len(writers[-1].told)
            while sum(line.startswith(DURABLE) for line in writers[-1].told[told:]) < 2 and writers[-1].is_at_work:
                time.sleep(0.01)
            assert writers[-1].is_at_work
            time.sleep(generator.random() * 0.2)
            before = [line for writer in writers for line in tuple(writer.told) if line.startswith(DURABLE)]
            disk.after_a_cut(store, tmp_path / f"copy {cut}", generator)
            at_work = [writer for writer in writers if writer.is_at_work]
            for writer in at_work if cut % 2 else at_work[:1]:
                writer.kill()
            asyncio.run(look(tmp_path / f"copy {cut}", before))
            durable += len(before)
            shutil.rmtree(tmp_path / f"copy {cut}")
    finally:
        for writer in writers:
            writer.kill()
    assert durable > 3 * PROCESS_CUTS


async def look(directory: Path, durable: list[str]) -> None:
    """Look for all that was acknowledged as durable, and at all that there is."""
    async with await open_store(directory) as store:
        await check(store, durable)
        await is_whole(store, [])


@pytest.mark.parametrize("lost", ["the mark of a failed sync", "the checkpoint", "all of the index"])
async def test_a_power_cut_that_takes_what_tells_of_it_takes_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    """A sync fails, so the store is marked. The mark is not synced, and the cut takes it, or more."""
    directory, disk, generator = tmp_path / "store", SimulatedDisk(tmp_path / "disk"), random.Random(17)
    told: list[str] = []
    async with written(directory, told, lost, disk) as writers:
        for _ in range(2000):
            if sum(line.startswith(DURABLE) for line in told) >= 20:
                break
            await asyncio.sleep(0.01)

        def fail(_path: object) -> None:
            raise OSError(errno.EIO, "Input/output error")

        with monkeypatch.context() as patch:
            patch.setattr(disk, "sync", fail)
            await asyncio.gather(*writers, return_exceptions=True)
        assert (directory / "sync-failed").exists()
        durable = [line for line in told if line.startswith(DURABLE)]
        for round_ in range(3):
            copy = tmp_path / f"copy {round_}"
            disk.after_a_cut(directory, copy, generator)
            (copy / "sync-failed").unlink(missing_ok=True)
            if lost != "the mark of a failed sync":
                (copy / "checkpoint").unlink()
            if lost == "all of the index":
                shutil.rmtree(copy / "index")
            await look(copy, durable)
        for writer in writers:
            with pytest.raises(UnavailableError):
                writer.result()
        writers.clear()


async def put_records(directory: Path, disk: SimulatedDisk, seed: str, count: int) -> AsyncIterator[dict[bytes, bytes]]:
    """Put durable records, one commit each, and make no more checkpoints than the first commit needs."""
    put: dict[bytes, bytes] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Checkpointer, "_serve", lambda _: None)
        async with await open_store(directory, durability=disk) as store:
            assert store.records is not None
            for number in range(count):
                key = Digest.of(f"{seed} {number}".encode()).raw
                await store.records.put({key: key * 20})
                put[key] = key * 20
                yield put


def put_and_die(directory: Path, disk: Path) -> None:
    async def put() -> None:
        async for done in put_records(directory, SimulatedDisk(disk), "of the dead", 100):
            if len(done) == 100:
                os.kill(os.getpid(), signal.SIGKILL)

    asyncio.run(put())


@pytest.mark.timeout(120)
async def test_the_first_commit_of_a_process_relies_on_no_pin_of_a_dead_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The dead one has committed behind its checkpoint. The pages that were free between the two are used again by the next one.

    Where the checkpoint is torn, packs bring everything back, but that takes minutes in a large store.
    """
    directory, disk, generator = tmp_path / "store", SimulatedDisk(tmp_path / "disk"), random.Random(19)
    dead = multiprocessing.get_context("spawn").Process(target=put_and_die, args=(directory, tmp_path / "disk"))
    dead.start()
    await asyncio.to_thread(dead.join)
    assert dead.exitcode == -signal.SIGKILL
    expected = {key: key * 20 for key in (Digest.of(f"of the dead {number}".encode()).raw for number in range(100))}
    async for put in put_records(directory, disk, "of the next", 60):
        if len(put) % 3:
            continue
        copy = tmp_path / f"copy {len(put)}"
        disk.after_a_cut(directory, copy, generator)
        async with await open_store(copy) as store:
            assert store.records is not None
            for key, value in (expected | put).items():
                assert await store.records.get(key) == value
        shutil.rmtree(copy)
    assert "replayed its packs from there" in caplog.text
    assert "anew" not in caplog.text
