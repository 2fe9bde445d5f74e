"""Memory of the daemon while many clients stream blobs in and out."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.bench import Bench, say
from benchmarks.blob_client import import_blob, stream_blobs
from benchmarks.daemon import running_daemon
from benchmarks.figures import MEGABYTES, Row, Series, Target
from benchmarks.workers import KINDS, memory_peaks

_READERS = 8
_WRITERS = 8


def measure(bench: Bench) -> Sequence[Row]:
    inputs = bench.fresh()
    blob = import_blob(inputs / "store", bench.big)
    with running_daemon(inputs / "store") as daemon, memory_peaks(daemon.workers) as peaks:
        seconds = stream_blobs(daemon, blob, readers=_READERS, writers=_WRITERS)
    say(f"{_READERS} readers and {_WRITERS} writers took {seconds:.1f} s")
    work = f"peak {{}} of a worker, {_READERS} blobs in and {_WRITERS} out"
    rss, pss = (Series("tvix-store daemon", [max(worker[kind] for worker in peaks.values())]) for kind in KINDS)
    return [
        Row(work.format("RSS"), MEGABYTES, rss, target=Target("under", 200)),
        Row(work.format("PSS"), MEGABYTES, pss),
    ]
