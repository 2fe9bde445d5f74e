"""wrk, a client of HTTP/1.1 that costs little, asking for many URLs at random."""

from __future__ import annotations

import json
import resource
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.bench import output

# In `init`, since only there wrk.format knows the host. A request is made once; to pick one costs a fraction of a microsecond.
_SCRIPT = """
local requests = {}

local pause = 0

function init(arguments)
  pause = tonumber(arguments[2])
  math.randomseed(os.time())
  for path in io.lines(arguments[1]) do
    requests[#requests + 1] = wrk.format("GET", path)
  end
end

function request()
  return requests[math.random(#requests)]
end

function delay()
  return pause
end

function done(summary, latency, all)
  local errors = summary.errors
  io.write(string.format(
    '\\n{"requests": %d, "microseconds": %d, "p99": %d, "bytes": %d, "errors": %d}\\n',
    summary.requests, summary.duration, latency:percentile(99), summary.bytes,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout
  ))
end
"""


@dataclass(frozen=True, slots=True)
class Load:
    """What wrk saw: requests a second, the time within which 99 % of them were answered, bytes of all answers with their heads."""

    requests: int
    rate: float
    p99_milliseconds: float
    bytes: int
    core_seconds: float
    """What wrk itself took of the cores."""


def wrk(url: str, paths: Sequence[str], *, connections: int, seconds: int, directory: Path, pause: int = 0) -> Load:
    """One thread of wrk asks for `paths` (`/…`) at random, on as many connections at once. Each waits `pause` ms before it asks."""
    script, list_ = directory / "script.lua", directory / "paths"
    script.write_text(_SCRIPT)
    list_.write_text("".join(f"{path}\n" for path in paths))
    used_before = _core_seconds_of_programs()
    options = ("--threads=1", f"--connections={connections}", f"--duration={seconds}s", f"--script={script}")
    printed = output("wrk", *options, url, "--", list_, str(pause))
    used = _core_seconds_of_programs() - used_before
    result = json.loads(printed.splitlines()[-1])
    if result["errors"]:
        sys.exit(f"not everything was answered well:\n{printed}")
    rate = result["requests"] / result["microseconds"] * 1e6
    return Load(result["requests"], rate, result["p99"] / 1000, result["bytes"], used)


def _core_seconds_of_programs() -> float:
    """What programs that we started, and that have ended, took of the cores."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
