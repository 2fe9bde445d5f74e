"""Copying a tree from one daemon to another, and again when all is there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.bench import TVIX_STORE, Bench, output
from benchmarks.daemon import running_daemon
from benchmarks.figures import SECONDS, Row, Series, Target
from benchmarks.usage import usage
from benchmarks.workers import core_seconds


def measure(bench: Bench) -> Sequence[Row]:
    source = bench.fresh() / "store"
    path = output(TVIX_STORE, "import", "--store", f"local://{source}", bench.tree).strip()

    def local(directory: Path) -> dict[str, float]:
        cache = {"XDG_CACHE_HOME": str(directory / "cache")}
        used = usage(TVIX_STORE, "import", "--store", f"local://{directory}/store", bench.tree, environment=cache)
        return {"import": used.seconds, "cores: import": used.core_seconds}

    def daemons(directory: Path) -> dict[str, float]:
        with running_daemon(source) as sender, running_daemon(directory / "store") as receiver:
            served = [process for daemon in (sender, receiver) for process in (daemon.process_id, *daemon.workers)]
            copy = (TVIX_STORE, "copy", "--from", sender.url, "--to", receiver.url, path)
            before = core_seconds(served)
            first = usage(*copy)
            between = core_seconds(served)
            again = usage(*copy)
            after = core_seconds(served)
        return {
            "copy": first.seconds,
            "cores: copy": first.core_seconds + between - before,
            "again": again.seconds,
            "cores: again": again.core_seconds + after - between,
        }

    measured = bench.interleaved(local, daemons)

    def beside_import(work: str, name: str, target: Target | None = None) -> Row:
        imported = Series("our local import", measured[name.replace("copy", "import")])
        return Row(work, SECONDS, Series("tvix-store copy", measured[name]), imported, target)

    def alone(work: str, name: str, target: Target | None = None) -> Row:
        return Row(work, SECONDS, Series("tvix-store copy", measured[name]), target=target)

    return [
        beside_import("copy Tree from daemon to daemon", "copy", Target("at most", 2)),
        beside_import("core time of that", "cores: copy"),
        alone("copy Tree again, all is there", "again", Target("under", 0.3)),
        alone("core time of that", "cores: again"),
    ]
