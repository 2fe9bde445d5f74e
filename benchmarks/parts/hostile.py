"""GET of narinfos by a client that behaves, while others mean no good. Its p99 must stay below three times what it is alone."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks.attacks import ATTACKS
from benchmarks.bench import ROOT, TVIX_STORE, Bench, output
from benchmarks.daemon import Daemon, running_daemon
from benchmarks.figures import MILLISECONDS, Row, Series, Target
from benchmarks.http_client import nar_url
from benchmarks.path_infos import put_path_infos
from benchmarks.wrk import wrk
from tvix_store.model import nixbase32

_CONNECTIONS = 16
_PAUSE = 10
"""Milliseconds between the requests of a connection: the client behaves, and the daemon has time to spare."""
_UNDER_WAY = 2.0
"""Seconds after which an attack has done what it does at its beginning."""
_PATHS = 200
_LARGE = 32 << 20


def measure(bench: Bench) -> Sequence[Row]:
    inputs = bench.fresh()
    hashes, _ = asyncio.run(put_path_infos(inputs, _PATHS))
    paths = [f"/{nixbase32.encode(each)}.narinfo" for each in hashes]
    file = inputs / "large"
    file.write_bytes(os.urandom(_LARGE))
    large = output(TVIX_STORE, "import", "--store", f"local://{inputs}/store", file).strip()
    with running_daemon(inputs / "store") as daemon:
        url = nar_url(daemon.cache_url, large, "none").removeprefix(daemon.cache_url)

        def p99(attack: str | None, directory: Path) -> float:
            with _attack(attack, daemon, paths[0] if attack == "rapid-resets" else url, 0 if bench.quick else _UNDER_WAY):
                load = wrk(
                    daemon.cache_url, paths, connections=_CONNECTIONS, seconds=bench.load_seconds, directory=directory, pause=_PAUSE
                )
            return load.p99_milliseconds

        p99(None, inputs)  # the first GET of a path writes a link, and the first of a worker renders

        def measured(directory: Path) -> dict[str, float]:
            return {name or "": p99(name, directory) for name in (None, *ATTACKS)}

        figures = bench.interleaved(measured)
    work = f"p99 of GETs of narinfos, {_CONNECTIONS} connections, {_PAUSE} ms apart"
    alone = Series("alone", figures[""])
    return [
        Row(f"{work}, beside {name}", MILLISECONDS, Series(name, figures[name]), alone, Target("at most", 3)) for name in ATTACKS
    ]


@contextmanager
def _attack(name: str | None, daemon: Daemon, path: str, under_way: float) -> Iterator[None]:
    if name is None:
        yield
        return
    command = [sys.executable, "-m", "benchmarks.attacks", name, daemon.address.rpartition(":")[2], path]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin
    assert process.stdout
    try:
        assert process.stdout.readline() == b"at work\n"
        time.sleep(under_way)
        yield
    finally:
        process.kill()
        process.communicate()
