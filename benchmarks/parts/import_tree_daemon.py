"""Importing a tree through the daemon, against importing it without one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.bench import TVIX_STORE, Bench, timed
from benchmarks.daemon import running_daemon
from benchmarks.figures import SECONDS, Row, Series, Target


def measure(bench: Bench) -> Sequence[Row]:
    def local(directory: Path) -> dict[str, float]:
        return {"local": timed(TVIX_STORE, "import", "--store", f"local://{directory}/store", bench.tree)}

    def through_daemon(directory: Path) -> dict[str, float]:
        with running_daemon(directory / "store") as daemon:
            return {"through the daemon": timed(TVIX_STORE, "import", "--store", daemon.url, bench.tree)}

    measured = bench.interleaved(local, through_daemon)
    return [
        Row(
            "import Tree through the daemon",
            SECONDS,
            Series("tvix-store import", measured["through the daemon"]),
            Series("our local import", measured["local"]),
            Target("at most", 3),
        )
    ]
