"""h2load, the cheapest client of HTTP/2 there is, calling a gRPC method. It sees HTTP alone: only data tell if a call succeeded."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from benchmarks.bench import output
from benchmarks.daemon import Daemon


@dataclass(frozen=True, slots=True)
class Load:
    """What h2load saw: seconds, calls, calls a second, and bytes of all answers (messages, each with gRPC's prefix of 5 bytes)."""

    seconds: float
    calls: int
    rate: float
    data: int


def h2load(daemon: Daemon, method: str, body: Path, *options: str) -> Load:
    """Call `method`, `package.Service/Method`, with `body`: the file of a message with its prefix."""
    headers = ("--header=content-type: application/grpc", "--header=te: trailers")
    printed = output("h2load", *options, *headers, f"--data={body}", f"http://{daemon.address}/{method}")
    finished = re.search(r"finished in ([\d.]+)(us|ms|s), ([\d.]+) req/s", printed)
    calls = re.search(r"requests: .* (\d+) succeeded", printed)
    data = re.search(r"\((\d+)\) data", printed)
    assert finished, printed
    assert calls, printed
    assert data, printed
    seconds = float(finished[1]) * {"us": 1e-6, "ms": 1e-3, "s": 1}[finished[2]]
    return Load(seconds, int(calls[1]), float(finished[3]), int(data[1]))
