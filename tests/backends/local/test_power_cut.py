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

from tests.backends.local.test_kill import check, is_linked
from tests.backends.local.writer_process import PACK_SIZE, write_for_ever
from tvix_store.backends.local import open_store
from tvix_store.backends.local.committer import Committer
from tvix_store.backends.local.unsynced import FILE as MARK
from tvix_store.errors import NotFoundError
from tvix_store.services.store import Store
from tvix_store.testing.content import collect

CUTS = int(os.environ.get("TVIX_STORE_TEST_POWER_CUTS", "30"))
CUTS_OF_A_STORE = 5
WRITERS = 4
PAGE = 4096
DURABLE = ("path", "signature", "records")


class Disk:
    """Knows how much of each file was synced, instead of syncing it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._synced: dict[int, int] = {}
        monkeypatch.setattr(os, "fdatasync", self._sync)
        monkeypatch.setattr(os, "fsync", self._sync)
        self._ftruncate = os.ftruncate
        monkeypatch.setattr(os, "ftruncate", self._cut)

    def _sync(self, fd: int) -> None:
        status = os.fstat(fd)
        self._synced[status.st_ino] = status.st_size

    def _cut(self, fd: int, size: int) -> None:
        self._ftruncate(fd, size)
        inode = os.fstat(fd).st_ino
        self._synced[inode] = min(self._synced.get(inode, 0), size)

    def after_a_cut(self, store: Path, copy: Path, generator: random.Random) -> None:
        """Make `copy` what is left of a store: all that was synced, and any pages of the rest."""
        (copy / "packs").mkdir(parents=True)
        for pack in (store / "packs").iterdir():
            if pack.suffix != ".pack":  # not finished, and nobody's
                continue
            synced = self._synced.get(pack.stat().st_ino, 0)
            data = pack.read_bytes()
            rest = bytearray(data[synced : synced + generator.randrange(len(data) - synced + 1)])
            for at in range(0, len(rest), PAGE):
                if generator.random() < 0.5:
                    rest[at : at + PAGE] = bytes(len(rest[at : at + PAGE]))
            (copy / "packs" / pack.name).write_bytes(data[:synced] + rest)
        for file in store.iterdir():
            if file.is_file():
                shutil.copyfile(file, copy / file.name)
        (copy / MARK).write_text("another boot")


@asynccontextmanager
async def written(directory: Path, told: list[str], seed: str) -> AsyncIterator[None]:
    """Some writers at work on the store; what they tell is added to `told`."""

    async def write(store: Store, number: int) -> None:
        async for line in write_for_ever(store, f"{seed} {number}"):
            told.append(line)  # noqa: PERF401 - others look at it meanwhile

    async with await open_store(directory, pack_size=PACK_SIZE) as store:
        writers = [asyncio.create_task(write(store, number)) for number in range(WRITERS)]
        try:
            yield
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
    disk = Disk(monkeypatch)
    for number in range(CUTS // CUTS_OF_A_STORE):
        told: list[str] = []
        async with written(tmp_path / f"store {number}", told, f"store {number}"):
            for cut in range(CUTS_OF_A_STORE):
                await asyncio.sleep(generator.random() * 0.2)
                while sum(line.startswith("tree") for line in told) <= 2 * cut:  # noqa: ASYNC110 - only on a busy machine
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
