"""Pushers, pullers and a collection in a loop, without a grace, each in a process of its own, which are killed at random."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.backends.local.collection_worker import PACK_SIZE
from tests.backends.local.store_files import make_index_anew
from tests.backends.local.test_checkpoint import engine_of
from tests.backends.local.test_collection import is_whole
from tvix_store.backends.local import open_store

SECONDS = float(os.environ.get("TVIX_STORE_TEST_COLLECTION_SECONDS", "4"))
EACH = int(os.environ.get("TVIX_STORE_TEST_COLLECTION_WORKERS", "2"))
"""Pushers, and as many pullers."""
KILLS = int(os.environ.get("TVIX_STORE_TEST_COLLECTION_KILLS", "4"))
"""At least; it goes on for longer where they are not reached."""
ALL = 0.2
"""Share of the kills that take all workers at a time."""


class Worker:
    """A process, and what it has told so far."""

    def __init__(self, role: str, store: Path, seed: str) -> None:
        self.role = role
        command = [sys.executable, "-m", "tests.backends.local.collection_worker", role, str(store), seed]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.told: list[str] = []
        self.errors = ""
        self._reading = [threading.Thread(target=each) for each in (self._read, self._read_errors)]
        for thread in self._reading:
            thread.start()

    def kill(self) -> None:
        assert self._process.poll() is None, self.errors
        self._process.kill()
        self._process.wait()
        for thread in self._reading:
            thread.join()
        assert "Traceback" not in self.errors, self.errors

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            self.told.extend(line[:-1] for line in lines if line.endswith("\n"))

    def _read_errors(self) -> None:
        assert self._process.stderr is not None
        with self._process.stderr as lines:
            for line in lines:
                self.errors += line


def has_told(what: str, workers: Sequence[Worker]) -> bool:
    return any(line.startswith(what) for worker in workers for line in worker.told)


@pytest.mark.timeout(36_000)
def test_a_collection_in_a_loop_beside_everybodys_work(tmp_path: Path) -> None:
    store, generator = tmp_path / "store", random.Random(23)
    roles = ["push"] * EACH + ["pull"] * EACH + ["collect"]
    workers: list[Worker] = []
    over: list[Worker] = []
    kills = 0
    end = time.monotonic() + SECONDS
    try:
        workers += [Worker(role, store, f"{number} of the first") for number, role in enumerate(roles)]
        while time.monotonic() < end or kills < KILLS or not (has_told("path", over) and has_told("run", over)):
            time.sleep(generator.uniform(0.2, 1.5))
            at_work = [worker for worker in workers if worker.told]  # a process takes a second to begin
            killed = at_work if generator.random() < ALL else generator.sample(at_work, min(1, len(at_work)))
            kills += len(killed)
            for worker in killed:
                workers.remove(worker)
                over.append(worker)
                worker.kill()
                workers.append(Worker(worker.role, store, f"{len(over)} {worker.role}"))
    finally:
        for worker in workers:
            over.append(worker)
            worker.kill()
    told = [line.split(" ", 2) for worker in over for line in worker.told]
    counts = Counter(words[0] for words in told)
    acknowledged = {bytes.fromhex(words[1]) for words in told if words[0] == "path"}
    removing = {bytes.fromhex(words[1]) for words in told if words[0] == "removing"}
    removed = {bytes.fromhex(words[1]) for words in told if words[0] == "removed"}
    freed = sum(int(words[1]) for words in told if words[0] == "run")
    failures = [words for words in told if words[0] in ("partial", "failed", "refused")]

    async def look() -> list[str]:
        """The paths that are lost, partial, or there again."""
        found = []
        async with await open_store(store) as opened:
            for output_hash in acknowledged - removing:
                info = await opened.path_infos.get(output_hash)
                if info is None or not await is_whole(opened, info):
                    found.append(f"{output_hash.hex()} is lost")
            found += [f"{each.hex()} is there again" for each in await opened.path_infos.existing(list(removed))]
            found += [
                f"{info.store_path} is partial" async for info in opened.path_infos.list() if not await is_whole(opened, info)
            ]
            assert opened.collection is not None
            for _ in range(2):
                await opened.collection.collect(0)
            with engine_of(opened).index.reading() as txn:
                assert 0 not in engine_of(opened).index.committed_packs(txn).values()
        return found

    wrong = asyncio.run(look())
    size = sum(each.stat().st_size for each in (store / "packs").iterdir())
    make_index_anew(store)
    wrong += asyncio.run(look())
    print(
        f"{counts['path']} paths acknowledged, {counts['refused']} refused, {len(removed)} removed, {counts['read']} read, "
        f"{counts['run']} runs, {counts['failed']} failed, {kills} times killed, {freed} bytes freed, {size} left; "
        f"{counts['partial']} partial, {len(wrong)} wrong in the end"
    )
    for kind, count in Counter(" ".join(words[:2]) for words in failures).items():
        print(count, kind, next(words[2] for words in failures if " ".join(words[:2]) == kind)[:200])
    assert not wrong, wrong[:10]
    assert not counts["partial"]
    assert counts["path"]
    assert size < 20 * PACK_SIZE
