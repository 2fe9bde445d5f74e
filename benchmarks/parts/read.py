"""Reading a big blob from the daemon."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.bench import Bench
from benchmarks.blob_client import import_blob, stream_blobs
from benchmarks.daemon import running_daemon
from benchmarks.figures import GIGABYTES_A_SECOND, Row, Series, Target


def measure(bench: Bench) -> Sequence[Row]:
    with bench.fresh() as inputs:
        blob = import_blob(inputs / "store", bench.big)
        with running_daemon(inputs / "store") as daemon:

            def ours(directory: Path) -> dict[str, float]:
                return {"GB/s": blob.size / 1e9 / stream_blobs(daemon, blob, readers=1)}

            measured = bench.interleaved(ours)
    return [
        Row("Blob Read of Big", GIGABYTES_A_SECOND, Series("tvix-store daemon", measured["GB/s"]), target=Target("at least", 1.2))
    ]
