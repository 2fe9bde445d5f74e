"""The first byte of a range at the end of a very large NAR."""

from __future__ import annotations

import os
import random
import shutil
import time
from collections.abc import Sequence
from http.client import HTTPConnection
from pathlib import Path
from statistics import median
from urllib.parse import urlsplit

from benchmarks.bench import TVIX_STORE, Bench, output
from benchmarks.daemon import Daemon, running_daemon
from benchmarks.figures import MILLISECONDS, Row, Series, Target
from benchmarks.http_client import nar_url

_MIB = 1024 * 1024
_FILES = 10
_REQUESTS = 50
_COMPRESSIONS = {"none": "uncompressed", "zstd": "zstd"}
_MOST = 20
"""Milliseconds."""


def measure(bench: Bench) -> Sequence[Row]:
    inputs = bench.fresh()
    tail = _make_tree(inputs / "tree", mib=4 if bench.quick else 1024)
    store = inputs / "store"
    store_path = output(TVIX_STORE, "import", "--store", f"local://{store}", inputs / "tree").strip()
    shutil.rmtree(inputs / "tree")  # ten files

    def ours(directory: Path) -> dict[str, float]:
        measured: dict[str, float] = {}
        for compression in _COMPRESSIONS:
            with running_daemon(store) as daemon:
                first, *others = _first_bytes(daemon, store_path, compression, tail)
            measured |= {
                f"{compression}, the very first": first,
                f"{compression}, median": median(others),
                f"{compression}, max": max(others),
            }
        return measured

    measured = bench.interleaved(ours)

    def row(name: str, compression: str, target: Target | None = None) -> Row:
        work = f"first byte at the end of {_FILES} GiB, {_COMPRESSIONS[compression]}: {name}"
        return Row(work, MILLISECONDS, Series("tvix-store daemon", measured[f"{compression}, {name}"]), target=target)

    return [
        row("median", "none", Target("under", _MOST)),
        row("max", "none", Target("under", _MOST)),
        row("the very first", "none"),
        *(row(name, "zstd") for name in ("median", "max", "the very first")),
    ]


def _make_tree(tree: Path, mib: int) -> bytes:
    """Write files that each repeat a MiB of their own, so that the store has little to keep; the end of the last one."""
    tree.mkdir()
    for number in range(_FILES):
        piece = os.urandom(_MIB)
        with (tree / f"{number}").open("wb") as file:
            for _ in range(mib):
                file.write(piece)
    return piece[-1000:]


def _first_bytes(daemon: Daemon, store_path: str, compression: str, tail: bytes) -> list[float]:
    """Milliseconds from a request to the first byte of its range; on one connection."""
    target = urlsplit(nar_url(daemon.cache_url, store_path, compression))
    assert target.hostname
    connection = HTTPConnection(target.hostname, target.port)
    milliseconds = []
    for _ in range(1 + 1 + _REQUESTS):
        wanted = random.randint(2000, _MIB)
        began = time.perf_counter()
        connection.request("GET", f"{target.path}?{target.query}", headers={"Range": f"bytes=-{wanted}"})
        answer = connection.getresponse()
        first = answer.read(1)
        milliseconds.append((time.perf_counter() - began) * 1000)
        body = first + answer.read()
        assert answer.status == 206
        assert len(body) == wanted
        assert tail in body or compression != "none"
    connection.close()
    del milliseconds[1]  # the warm-up
    return milliseconds
