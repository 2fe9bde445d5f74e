"""A daemon for a long time, under mixed load, while its store is collected and scrubbed and it is started anew now and then.

    python -m tests.collection.soak --minutes 30

Pushers put trees, some of whose content is old. Pullers read random paths over HTTP, and hold each NAR against its hash. A remover
deletes paths. In the first half, the daemon is ended, and a worker killed, every two minutes. In the second half, nothing is
disturbed, and memory and descriptors of the workers are watched. At the end everything is checked. Prints a line of figures.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import aiohttp

from tests.http.daemon import Daemon
from tvix_store import StoreError, UnavailableError, import_tree, open_store
from tvix_store.config.compose import open_store as open_local
from tvix_store.errors import NotFoundError
from tvix_store.model.store_path import StorePath
from tvix_store.operations.collection.delete import delete_paths

_PUSHERS, _PULLERS = 4, 4
_MOST_PATHS = 400
"""Paths that are kept; beyond that, the remover deletes some."""
_DISTURBED_EVERY = 120.0
"""Seconds."""
_OPTIONS = ("--gc-interval", "1m", "--gc-grace", "1m", "--scrub-days", "0.003")


class Soak:
    """What was put and acknowledged, and what went wrong."""

    def __init__(self, directory: Path, seconds: float) -> None:
        self._directory = directory
        self._daemon = Daemon(directory, *_OPTIONS)
        self._ends = time.monotonic() + seconds
        self._half = time.monotonic() + seconds / 2
        self._paths: dict[StorePath, str] = {}
        """Paths that must be there, and the hashes of their NARs."""
        self._leaving: set[StorePath] = set()
        self.counts: Counter[str] = Counter()
        self.faults: list[str] = []
        self._random = random.Random(1)
        self.memory: list[int] = []
        """MB that the workers have, in the second half."""
        self._samples: list[tuple[float, int, int]] = []

    async def run(self) -> None:
        self._daemon.start()
        try:
            async with asyncio.TaskGroup() as tasks:
                for number in range(_PUSHERS):
                    tasks.create_task(self._push(number))
                for _ in range(_PULLERS):
                    tasks.create_task(self._pull())
                tasks.create_task(self._remove())
                tasks.create_task(self._disturb())
                tasks.create_task(self._watch())
        finally:
            self._daemon.stop()
        await self._check()

    @property
    def is_over(self) -> bool:
        return time.monotonic() > self._ends

    async def _push(self, number: int) -> None:
        tree = self._directory / f"tree-{number}"
        await asyncio.to_thread(tree.mkdir)
        while not self.is_over:
            for file in range(5):  # of few kinds, so that much is dropped and comes back
                kind = self._random.randrange(300)
                content = hashlib.shake_128(f"{kind}".encode()).digest(20_000 + 1000 * kind)
                await asyncio.to_thread((tree / str(file)).write_bytes, content)
            try:
                async with await open_store(f"grpc+http://127.0.0.1:{self._daemon.port}") as store:
                    imported = await import_tree(store, tree, name=f"soak-{number}")
                if imported.store_path not in self._leaving:
                    self._paths[imported.store_path] = imported.nar.sha256.hex()
                self.counts["pushed"] += 1
            except (UnavailableError, OSError):
                self.counts["pushes while the daemon was down"] += 1
            except StoreError as error:
                self.faults.append(f"push: {type(error).__name__}: {error}")
            await asyncio.sleep(0.3)

    async def _pull(self) -> None:
        async with aiohttp.ClientSession() as session:
            while not self.is_over:
                await asyncio.sleep(0.1)
                if not self._paths:
                    continue
                path, sha256 = self._random.choice(list(self._paths.items()))
                try:
                    await self._pull_one(session, path, sha256)
                except (aiohttp.ClientError, OSError, TimeoutError):
                    self.counts["pulls while the daemon was down"] += 1

    async def _pull_one(self, session: aiohttp.ClientSession, path: StorePath, sha256: str) -> None:
        base = f"http://127.0.0.1:{self._daemon.port}"
        async with session.get(f"{base}/{str(path)[:32]}.narinfo") as answer:
            narinfo = await answer.text()
            status = answer.status
        if status == 200:
            url = next(line.partition(" ")[2] for line in narinfo.splitlines() if line.startswith("URL: "))
            async with session.get(f"{base}/{url}") as answer:
                data, status = await answer.read(), answer.status
        if path not in self._paths:  # it was deleted meanwhile
            return
        if status != 200:
            self.faults.append(f"pull of {path}: {status}")
            return
        if url.endswith(".zst"):
            import zstandard

            data = zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True).read()
        if hashlib.sha256(data).hexdigest() != sha256:
            self.faults.append(f"pull of {path}: wrong bytes")
        self.counts["pulled"] += 1

    async def _remove(self) -> None:
        """Delete paths, in a process of its own as a command would: the store is opened beside the daemon."""
        while not self.is_over:
            await asyncio.sleep(2)
            extra = len(self._paths) - _MOST_PATHS // 2
            if extra <= 0:
                continue
            chosen = self._random.sample(list(self._paths), min(extra, 20))
            self._leaving.update(chosen)
            for path in chosen:
                del self._paths[path]
            await asyncio.sleep(1)  # pushes of the same path that are under way
            async with await open_local(f"local://{self._daemon.program.store}") as store:
                for path in chosen:
                    with suppress(NotFoundError):
                        await delete_paths(store, [path])
                        self.counts["deleted"] += 1
            await asyncio.sleep(1)
            self._leaving.difference_update(chosen)

    async def _disturb(self) -> None:
        while time.monotonic() < self._half:
            await asyncio.sleep(_DISTURBED_EVERY / 2)
            os.kill(self._random.choice(self._daemon.workers), signal.SIGKILL)
            self.counts["workers killed"] += 1
            await asyncio.sleep(_DISTURBED_EVERY / 2)
            await asyncio.to_thread(self._daemon.stop)
            await asyncio.to_thread(self._daemon.start)
            self.counts["restarts"] += 1

    async def _watch(self) -> None:
        while not self.is_over:
            await asyncio.sleep(10)
            with suppress(OSError):
                pids = self._daemon.workers
                memory = sum(_anonymous(pid) for pid in pids)
                descriptors = sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in pids)
                self._samples.append((time.monotonic(), memory, descriptors))

    async def _check(self) -> None:
        checked = self._daemon.program.run("check", "--read-data", "--json")
        if checked.code != 0:
            self.faults.append(f"check ended with {checked.code}: {checked.output.decode()[-500:]}")
        listed = set(self._daemon.program("list").split())
        for path in self._paths:
            if path.absolute() not in listed:
                self.faults.append(f"{path} is lost")
        late = [each for each in self._samples if each[0] > self._half + 60]
        if late:
            step = max(len(late) // 6, 1)
            self.memory = [memory >> 20 for _, memory, _ in late[::step]]
            self.counts["descriptors, 1 minute into the second half"] = late[0][2]
            self.counts["descriptors, at the end"] = late[-1][2]
        log = self._daemon.log
        self.counts["collections"] = log.count("collected: ")
        for line in log.splitlines():
            if " ERROR " in line or "Traceback" in line:
                self.counts["lines of errors in the log"] += 1
                self.faults += [f"log: {line}"] if "ended: SIGKILL" not in line else []
        self.counts["MB in packs"] = sum(each.stat().st_size for each in (self._daemon.program.store / "packs").iterdir()) >> 20


def _anonymous(pid: int) -> int:
    """Bytes of memory that are a process's own."""
    status = Path(f"/proc/{pid}/status").read_text()
    return 1024 * sum(int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon:"))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=30)
    minutes: float = parser.parse_args().minutes
    with tempfile.TemporaryDirectory(dir="/var/tmp") as directory:
        soak = Soak(Path(directory), 60 * minutes)
        asyncio.run(soak.run())
    print(json.dumps({**soak.counts, "MB of memory in the second half": soak.memory, "faults": len(soak.faults)}))
    for fault in soak.faults[:50]:
        print(fault)
    sys.exit(bool(soak.faults))


if __name__ == "__main__":
    main()
