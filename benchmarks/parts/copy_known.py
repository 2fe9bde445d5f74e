"""Copying a closure that is there already, over a link with a long round trip."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from benchmarks.bench import TVIX_STORE, Bench, Contestant
from benchmarks.daemon import running_daemon
from benchmarks.figures import SECONDS, Row, Series, Target
from benchmarks.link import running_link
from benchmarks.usage import usage
from tvix_store import PathInfo, StorePath, import_tree, open_store

_ROUND_TRIP = 0.05
"""Seconds."""
_SCHEMES = {"gRPC": "grpc+http", "HTTP": "connect+http"}
_DIRECTIONS = ("to", "from")


def measure(bench: Bench) -> Sequence[Row]:
    count = 20 if bench.quick else 1000
    inputs = bench.fresh()
    path = asyncio.run(_put_closure(inputs, count))
    shutil.copytree(inputs / "store", inputs / "same")

    def copied(protocol: str, direction: str, directory: Path) -> dict[str, float]:
        del directory  # nothing is written
        with running_daemon(inputs / "same") as daemon, running_link(daemon.address, _ROUND_TRIP) as link:
            url, local = f"{_SCHEMES[protocol]}://{link.address}", f"local://{inputs}/store"
            source, target = (local, url) if direction == "to" else (url, local)
            client = usage(TVIX_STORE, "copy", "--closure", "--from", source, "--to", target, path)
        name = f"{direction} a daemon, {protocol}"
        return {name: client.seconds, f"cores: {name}": client.core_seconds, f"turns: {name}": link.turns}

    contestants: list[Contestant] = [partial(copied, protocol, direction) for protocol in _SCHEMES for direction in _DIRECTIONS]
    measured = bench.interleaved(*contestants)

    def row(work: str, name: str, target: Target | None = None) -> Row:
        return Row(work, SECONDS, Series("tvix-store copy", measured[name]), target=target)

    rows = []
    for protocol in _SCHEMES:
        for direction in _DIRECTIONS:
            name = f"{direction} a daemon, {protocol}"
            work = f"copy {count} known paths {name}, round trip 50 ms"
            rows += [
                row(work, name, Target("at most", 1) if direction == "to" else None),
                row("core time of its client", f"cores: {name}"),
            ]
    return rows


async def _put_closure(directory: Path, count: int) -> str:
    """Fill the store in `directory` with small paths. They refer to each other as a tree; the last one, whose path this is, refers
    to all.
    """
    tree = directory / "tree"
    tree.mkdir()
    paths: list[StorePath] = []
    async with await open_store(f"local://{directory}/store") as store:
        for number in range(count):
            (tree / "file").write_text(f"content {number}")
            root = await import_tree(store, tree, path_info=False)
            refers = paths if number == count - 1 else paths[(number - 1) // 2 :][:1]
            path = StorePath(hashlib.sha256(b"%d" % number).digest()[:20], f"path-{number}")
            await store.path_infos.put(PathInfo(path, root.node, root.nar, references=tuple(sorted(refers))))
            paths.append(path)
        return paths[-1].absolute(store.store_dir)
