"""Importing one big file through the daemon, against copying it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.bench import TVIX_STORE, Bench, timed
from benchmarks.daemon import running_daemon
from benchmarks.figures import SECONDS, Row, Series, Target


def measure(bench: Bench) -> Sequence[Row]:
    def copy(directory: Path) -> dict[str, float]:
        return {"copy": timed("sh", "-c", 'cp "$0" "$1" && sync "$1"', bench.big, directory / "copy")}

    def ours(directory: Path) -> dict[str, float]:
        with running_daemon(directory / "store") as daemon:
            return {"ours": timed(TVIX_STORE, "import", "--store", daemon.url, bench.big)}

    measured = bench.interleaved(copy, ours)
    return [
        Row(
            "import Big through the daemon",
            SECONDS,
            Series("tvix-store import", measured["ours"]),
            Series("cp + fsync", measured["copy"]),
            Target("at most", 3),
        )
    ]
