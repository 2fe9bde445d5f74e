"""What a program uses: time, cores and memory."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile


@dataclass(frozen=True, slots=True)
class Usage:
    """Of one program and of the processes that it waited for.

    seconds: From its start to its end.
    core_seconds: What it used of the cores, in the kernel too.
    peak: The most MB that one of the processes had in memory (RSS).
    output: What it printed.
    """

    seconds: float
    core_seconds: float
    peak: float
    output: str


def usage(*command: str | Path, environment: Mapping[str, str] | None = None) -> Usage:
    """Run a program; if it fails, that is the end of the run, in its own words."""
    with TemporaryFile() as printed, TemporaryFile() as said:
        start = time.perf_counter()
        process = subprocess.Popen(
            command, env={**os.environ, **(environment or {})}, stdin=subprocess.DEVNULL, stdout=printed, stderr=said
        )
        _, status, used = os.wait4(process.pid, 0)  # Source: getrusage(2); ru_maxrss is in KiB
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        printed.seek(0)
        output = printed.read().decode()
        if process.returncode != 0:
            said.seek(0)
            sys.exit(f"{' '.join(map(str, command))} failed with exit code {process.returncode}:\n{output}{said.read().decode()}")
    return Usage(seconds, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024 / 1e6, output)
