"""Writers are killed at any moment, hundreds of times: nothing acknowledged is lost, nothing half-written is visible."""

from __future__ import annotations

import asyncio
import os
import random
import select
import signal
import sys
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import pytest

from tests.backends.local.store_files import make_index_anew
from tests.backends.local.writer_process import link, records, shared, write
from tvix_store.backends.local import open_store
from tvix_store.backends.local.durability import Durability
from tvix_store.model.digest import Digest
from tvix_store.model.store_path import StorePath
from tvix_store.services.store import Store
from tvix_store.testing.content import collect

KILLS = int(os.environ.get("TVIX_STORE_TEST_KILLS", "100"))
AT_ONCE = 4
MOST_ROUNDS = 50
"""What a writer can do before it is killed, and more."""


@dataclass(frozen=True, slots=True)
class Writer:
    """A forked process that writes: an interpreter would start for longer than it writes."""

    pid: int
    told: int
    """The end of the pipe where its lines come out."""

    @classmethod
    def start(cls, store: Path, seed: str) -> Writer:
        told, tell = os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of threads, which only the test runner has
            pid = os.fork()
        if pid == 0:
            _write(store, seed, tell)
        os.close(tell)
        return cls(pid, told)

    def kill(self) -> list[str]:
        """The lines that it told; a last one may be cut short."""
        assert os.waitpid(self.pid, os.WNOHANG) == (0, 0), "a writer ended by itself"
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        with open(self.told) as lines:
            return lines.read().split("\n")[:-1]


def _write(store: Path, seed: str, tell: int) -> NoReturn:
    """In the forked process."""
    try:
        sys.stdout = os.fdopen(tell, "w")
        asyncio.run(write(store, seed, Durability))
    finally:
        os._exit(1)


async def check(store: Store, lines: list[str]) -> None:
    for line in lines:
        kind, name, *rest = line.split()
        if kind == "blob":
            digest = Digest.parse(name)
            assert Digest.of(await collect(store.blobs.read(digest))) == digest
        elif kind == "records":
            pair = records(" ".join((name, *rest[:-1])), int(rest[-1]))
            assert store.records is not None
            assert {key: await store.records.get(key) for key in pair} == pair
        elif kind == "signature":
            signed = await store.path_infos.get(shared(name).output_hash)
            assert signed is not None
            assert name in {signature.name for signature in signed.signatures}
        elif kind == "tree":
            assert await is_linked(store, " ".join((name, *rest[:-1])), int(rest[-1]))
        elif kind == "directory":
            directory = await store.directories.get(Digest.parse(name))
            assert directory is not None
            assert directory.digest.hex == name
        else:
            info = await store.path_infos.get(StorePath.parse(name).output_hash)
            assert info is not None
            [root] = [each async for each in store.directories.get_recursive(info.node.digest)]  # type: ignore[union-attr]
            assert root.entries[b"file"].digest.hex == rest[0]  # type: ignore[union-attr]


async def is_linked(store: Store, seed: str, number: int) -> bool:
    """Whether the record is there that was put with a small tree; then the tree is."""
    assert store.records is not None
    [key] = link(seed, number, b"")
    root = await store.records.get(key)
    if root is None:
        return False
    [directory] = [each async for each in store.directories.get_recursive(Digest(root))]
    for node in directory.entries.values():
        assert len(await collect(store.blobs.read(node.digest))) == node.size  # type: ignore[union-attr]
    return True


async def _check_everything_visible(store: Store) -> int:
    """Every path info that is there leads to content that is there, and records that were put together are there together."""
    assert store.records is not None
    for writer in range(KILLS):
        for number in range(MOST_ROUNDS):
            pair = records(f"writer {writer}", number)
            assert [await store.records.get(key) for key in pair] in ([None, None], list(pair.values()))
            await is_linked(store, f"writer {writer}", number)
    count = 0
    async for info in store.path_infos.list():
        if info.store_path.name == shared("").name:
            continue
        async for directory in store.directories.get_recursive(info.node.digest):  # type: ignore[union-attr]
            for node in directory.entries.values():
                assert len(await collect(store.blobs.read(node.digest))) == node.size  # type: ignore[union-attr]
        count += 1
    return count


@pytest.mark.timeout(600)
def test_killed_writers_lose_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    store_directory = tmp_path / "store"
    generator = random.Random(7)
    told: list[str] = []
    for first in range(0, KILLS, AT_ONCE):
        writers = [Writer.start(store_directory, f"writer {first + n}") for n in range(AT_ONCE)]
        select.select([writers[0].told], [], [])  # all have begun, more or less
        for writer in generator.sample(writers, AT_ONCE):
            time.sleep(generator.random() * 0.05)
            told += writer.kill()
    assert sum(line.startswith("path") for line in told) > KILLS / 4
    assert sum(line.startswith("records") for line in told) > KILLS / 8

    async def visible_paths() -> int:
        async with await open_store(store_directory) as store:
            await check(store, [line for line in told if line])
            return await _check_everything_visible(store)

    visible = asyncio.run(visible_paths())
    make_index_anew(store_directory)
    assert asyncio.run(visible_paths()) >= visible
