"""GET of narinfos at random: what clients ask a cache for most often."""

from __future__ import annotations

import asyncio
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from benchmarks.bench import Bench
from benchmarks.daemon import Daemon, running_daemon
from benchmarks.figures import CALLS_A_SECOND, MICROSECONDS, MILLISECONDS, Row, Series, Target
from benchmarks.path_infos import put_path_infos
from benchmarks.workers import core_seconds
from benchmarks.wrk import wrk
from tvix_store.model import nixbase32

_CONNECTIONS = 16
_WARM_UPS = 2


def measure(bench: Bench) -> Sequence[Row]:
    inputs = bench.fresh()
    hashes, _ = asyncio.run(put_path_infos(inputs, bench.path_infos))
    paths = [f"/{nixbase32.encode(each)}.narinfo" for each in hashes]
    with running_daemon(inputs / "store") as daemon:
        size = _check(daemon, paths[0])
        for _ in range(_WARM_UPS):  # the first GET of a path writes a link, and the first of a worker renders
            wrk(daemon.cache_url, paths, connections=_CONNECTIONS, seconds=bench.load_seconds, directory=inputs)

        def ours(directory: Path) -> dict[str, float]:
            used_before = core_seconds(daemon.workers)
            load = wrk(daemon.cache_url, paths, connections=_CONNECTIONS, seconds=bench.load_seconds, directory=directory)
            used = core_seconds(daemon.workers) - used_before
            assert load.bytes > load.requests * size, load
            return {
                "rate": load.rate,
                "p99": load.p99_milliseconds,
                "workers": used / load.requests * 1e6,
                "wrk": load.core_seconds / load.requests * 1e6,
            }

        measured = bench.interleaved(ours)
    work = f"GET of {len(paths):,} narinfos at random, {_CONNECTIONS} connections"
    series = {name: Series("tvix-store daemon", values) for name, values in measured.items()}
    return [
        Row(work, CALLS_A_SECOND, series["rate"], target=Target("at least", 40_000)),
        Row(f"{work}: p99", MILLISECONDS, series["p99"]),
        Row(f"{work}: the workers' cores, for one", MICROSECONDS, series["workers"]),
        Row(f"{work}: wrk's core, for one", MICROSECONDS, series["wrk"]),
    ]


def _check(daemon: Daemon, path: str) -> int:
    """Whether a narinfo is one; its size, which is that of all."""
    with urllib.request.urlopen(daemon.cache_url + path) as answer:
        narinfo = answer.read()
    assert narinfo.startswith(b"StorePath: /nix/store/" + path[1:].removesuffix(".narinfo").encode()), narinfo
    return len(narinfo)
