"""Small calls: path infos at random, from 16 callers on 2 connections."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import mmap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import quantiles
from threading import Event, Thread

from benchmarks.bench import Bench, output
from benchmarks.daemon import Daemon, running_daemon
from benchmarks.figures import CALLS_A_SECOND, MILLISECONDS, Row, Series, Target
from benchmarks.h2load import h2load
from benchmarks.path_infos import put_path_infos
from tests import programs

_CALLERS = 16
_CONNECTIONS = 2
_METHOD = "tvix.store.v1.PathInfoService/Get"
_HEAD = b"\0\0\0\0\x16\x0a\x14"
"""Before an output hash: gRPC's prefix (not compressed, 22 bytes), and the field `by_output_hash` (20 bytes)."""
_BODY_LIFETIME = 0.001
"""Seconds for which h2load's calls ask for the same path."""


def measure(bench: Bench) -> Sequence[Row]:
    inputs = bench.fresh()
    hashes, message_size = asyncio.run(put_path_infos(inputs, bench.path_infos))
    data = inputs / "hashes.json"
    data.write_text(json.dumps([{"by_output_hash": base64.b64encode(each).decode()} for each in hashes]))
    with running_daemon(inputs / "store") as daemon:

        def by_ghz(directory: Path) -> dict[str, float]:
            return _ghz(daemon, data, bench.load_seconds)

        def by_h2load(directory: Path) -> dict[str, float]:
            return _h2load(daemon, hashes, message_size, bench.load_seconds, directory)

        measured = bench.interleaved(by_ghz, by_h2load)
    work = f"PathInfoService.Get, {_CALLERS} callers, {_CONNECTIONS} connections: "
    series = {name: Series("tvix-store daemon", values) for name, values in measured.items()}
    return [
        Row(work + "ghz", CALLS_A_SECOND, series["ghz"], target=Target("at least", 10_000)),
        Row(work + "p99 of ghz", MILLISECONDS, series["p99 of ghz"], target=Target("under", 5)),
        Row(work + "h2load", CALLS_A_SECOND, series["h2load"], target=Target("at least", 25_000)),
        Row(work + "p99 of h2load", MILLISECONDS, series["p99 of h2load"], target=Target("under", 5)),
    ]


def _ghz(daemon: Daemon, data: Path, seconds: int) -> dict[str, float]:
    printed = output(
        programs.find("ghz") or "",
        "--insecure",
        f"--call={_METHOD}",
        f"--data-file={data}",
        f"--concurrency={_CALLERS}",
        f"--connections={_CONNECTIONS}",
        f"--duration={seconds}s",
        "--duration-stop=wait",
        "--format=json",
        daemon.address,
    )
    result = json.loads(printed)
    assert list(result["statusCodeDistribution"]) == ["OK"], result["statusCodeDistribution"]
    [p99] = [each["latency"] / 1e6 for each in result["latencyDistribution"] if each["percentage"] == 99]
    return {"ghz": result["rps"], "p99 of ghz": p99}


def _h2load(daemon: Daemon, hashes: Sequence[bytes], message_size: int, seconds: int, directory: Path) -> dict[str, float]:
    log = directory / "log"
    options = (
        f"--clients={_CONNECTIONS}",
        f"--max-concurrent-streams={_CALLERS // _CONNECTIONS}",
        f"--duration={seconds}",
        f"--log-file={log}",
    )
    with _changing_body(directory / "body", hashes) as body:
        load = h2load(daemon, _METHOD, body, *options)
    assert load.data >= 0.999 * load.calls * (5 + message_size), load
    latencies = [int(line.split("\t")[2]) / 1000 for line in log.read_text().splitlines()]
    return {"h2load": load.rate, "p99 of h2load": quantiles(latencies, n=100)[98]}


@contextmanager
def _changing_body(path: Path, hashes: Sequence[bytes]) -> Iterator[Path]:
    """A body that asks for another path every moment.

    h2load has one body for all calls, but reads its file again for each of them. Source: file_read_callback in nghttp2's
    src/h2load_http2_session.cc.
    """
    path.write_bytes(_HEAD + hashes[0])
    done = Event()

    def change() -> None:
        with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as body:
            for each in itertools.cycle(hashes):
                if done.wait(_BODY_LIFETIME):
                    return
                body[len(_HEAD) :] = each

    changing = Thread(target=change)
    changing.start()
    try:
        yield path
    finally:
        done.set()
        changing.join()
