"""Collection: half of a store goes while others push; and how long it takes to mark many paths."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.bench import TVIX_STORE, Bench, output
from benchmarks.daemon import running_daemon
from benchmarks.figures import CALLS_A_SECOND, MEGABYTES, SECONDS, TIMES, Row, Series, Target
from tvix_store import PathInfo, StorePath, import_tree, open_store
from tvix_store.model.directory import Directory
from tvix_store.model.nodes import FileNode

_FILES = 20
"""Of a path. Each has 250 kB, and each path shares one with the next."""
_FILE = 250_000
_PUT_AT_ONCE = 500


def measure(bench: Bench) -> Sequence[Row]:
    paths = 20 if bench.quick else 1000
    marked = 200 if bench.quick else 1_000_000

    def half(directory: Path) -> dict[str, float]:
        all_paths = asyncio.run(_fill(directory, paths))
        with running_daemon(directory / "store") as daemon:
            (directory / "pushed").mkdir()
            alone = asyncio.run(_pushes(daemon.url, directory / "pushed", seconds=1 if bench.quick else 10))
        output(TVIX_STORE, "--store", directory / "store", "--quiet", "delete", *all_paths[::2])
        told = _gc(directory, "--dry-run")["condemned"]["size"]
        before = _size(directory / "store")
        with running_daemon(directory / "store") as daemon:
            begun = time.perf_counter()
            collecting = _start_gc(directory)
            beside = asyncio.run(_pushes(daemon.url, directory / "pushed", process=collecting))
            said, _ = collecting.communicate()
            seconds = time.perf_counter() - begun
        outcome = json.loads(said)
        assert outcome["freed"] > 0
        output(TVIX_STORE, "--store", directory / "store", "--quiet", "check", *([] if bench.quick else ["--read-data"]))
        return {
            "seconds": seconds,
            "freed": outcome["freed"] / told,
            "given back": (before - _size(directory / "store") + beside.size) / told,
            "alone": alone.rate,
            "beside": beside.rate,
        }

    def mark(directory: Path) -> dict[str, float]:
        asyncio.run(_fill_small(directory, marked))
        seconds, memory = _watched(TVIX_STORE, "--store", str(directory / "store"), "gc", "--dry-run")
        return {"mark": seconds, "memory": memory}

    measured = bench.interleaved(half, mark)

    def row(work: str, unit: Any, name: str, target: Target | None = None) -> Row:
        return Row(work, unit, Series("tvix-store gc", measured[name]), target=target)

    return [
        row(f"collect half of {paths} paths of 5 MB", SECONDS, "seconds"),
        row("freed, of what --dry-run said", TIMES, "freed", Target("at least", 0.95)),
        row("fewer bytes in the store's files, of the same", TIMES, "given back", Target("at least", 0.95)),
        Row(
            "pushes of a MB beside it, and without it",
            CALLS_A_SECOND,
            Series("beside", measured["beside"]),
            Series("alone", measured["alone"]),
            Target("at least", 0.5),
        ),
        row(f"mark {marked} paths", SECONDS, "mark", Target("under", 60)),
        row("memory of its own for that", MEGABYTES, "memory", Target("under", 500)),
    ]


class _Pushed:
    def __init__(self, count: int, seconds: float, size: int) -> None:
        self.rate = count / seconds
        self.size = size


async def _pushes(url: str, tree: Path, *, seconds: float = 0, process: subprocess.Popen[str] | None = None) -> _Pushed:
    """Push trees of a MB one after the other, for some time or while a process runs."""
    begun = time.perf_counter()
    count = 0
    async with await open_store(url) as store:
        while (time.perf_counter() - begun < seconds) if process is None else process.poll() is None:
            (tree / "file").write_bytes(os.urandom(1_000_000))
            await import_tree(store, tree, name="pushed")
            count += 1
    return _Pushed(count, time.perf_counter() - begun, count * 1_000_000)


async def _fill(directory: Path, count: int) -> list[str]:
    """A store of so many paths of 5 MB."""
    tree = directory / "tree"
    tree.mkdir()
    paths: list[str] = []
    async with await open_store(f"local://{directory}/store") as store:
        for number in range(count):
            for file in range(_FILES):
                seed = f"shared {number // 2}" if file == 0 else f"{number} {file}"
                (tree / str(file)).write_bytes(hashlib.shake_128(seed.encode()).digest(_FILE))
            imported = await import_tree(store, tree, name=f"path-{number}")
            paths.append(imported.store_path.absolute(store.store_dir))
    return paths


async def _fill_small(directory: Path, count: int) -> None:
    """A store of so many paths, each of which is a directory with a file of its own, and one that ten share."""
    async with await open_store(f"local://{directory}/store") as store:
        for start in range(0, count, _PUT_AT_ONCE):
            numbers = range(start, min(start + _PUT_AT_ONCE, count))
            own, shared = [b"file %d" % n for n in numbers], [b"shared %d" % (n // 10) for n in numbers]
            digests = await store.blobs.put_many([*own, *shared])
            directories: list[Directory] = []
            for at, (file, other) in enumerate(zip(own, shared, strict=True)):
                both = {b"own": FileNode(digests[at], len(file)), b"shared": FileNode(digests[at + len(own)], len(other))}
                directories.append(Directory(both))
            assert store.granular is not None
            await store.granular.put_directories(directories)
            nar = await store.nar.calculate(directories[0].node())  # of all of them, as far as a mark goes
            hashes = [hashlib.sha256(b"%d" % n).digest()[:20] for n in numbers]
            infos = [PathInfo(StorePath(h, "small"), each.node(), nar) for h, each in zip(hashes, directories, strict=True)]
            await asyncio.gather(*map(store.path_infos.put, infos))


def _gc(directory: Path, *options: str) -> Any:
    return json.loads(output(TVIX_STORE, "--store", directory / "store", "gc", "--json", *options))


def _start_gc(directory: Path) -> subprocess.Popen[str]:
    command = [TVIX_STORE, "--store", str(directory / "store"), "gc", "--json", "--grace", "0"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, encoding="utf-8")


def _watched(*command: str) -> tuple[float, float]:
    """The seconds of a program, and the most MB of memory that were its own: pages of files that it maps are the system's."""
    begun = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    most = 0
    while process.poll() is None:
        try:
            status = Path(f"/proc/{process.pid}/status").read_text()
        except OSError:
            break
        most = max(most, *(int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon:")), 0)
        time.sleep(0.05)
    assert process.wait() == 0
    return time.perf_counter() - begun, most * 1024 / 1e6


def _size(directory: Path) -> int:
    return sum(each.stat().st_size for each in directory.rglob("*") if each.is_file())
