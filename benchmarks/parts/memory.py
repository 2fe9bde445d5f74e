"""Memory of the daemon while many clients stream blobs in and out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

from benchmarks.bench import Bench, say
from benchmarks.blob_client import import_blob, stream_blobs
from benchmarks.daemon import Daemon, running_daemon
from benchmarks.figures import MEGABYTES, Row, Series, Target

_READERS = 8
_WRITERS = 8
_INTERVAL = 0.1
"""Seconds between two looks."""
_KINDS = ("Rss", "Pss")


def measure(bench: Bench) -> Sequence[Row]:
    inputs = bench.fresh()
    blob = import_blob(inputs / "store", bench.big)
    with running_daemon(inputs / "store") as daemon, _peaks(daemon) as peaks:
        seconds = stream_blobs(daemon, blob, readers=_READERS, writers=_WRITERS)
    say(f"{_READERS} readers and {_WRITERS} writers took {seconds:.1f} s")
    work = f"peak {{}} of a worker, {_READERS} blobs in and {_WRITERS} out"
    rss, pss = (Series("tvix-store daemon", [max(worker[kind] for worker in peaks.values())]) for kind in _KINDS)
    return [
        Row(work.format("RSS"), MEGABYTES, rss, target=Target("under", 200)),
        Row(work.format("PSS"), MEGABYTES, pss),
    ]


@contextmanager
def _peaks(daemon: Daemon) -> Iterator[dict[int, dict[str, float]]]:
    """Watch the daemon's workers while the body runs; the most MB of each kind that each of them had, by process id."""
    peaks = {worker: dict.fromkeys(_KINDS, 0.0) for worker in daemon.workers}
    done = Event()

    def watch() -> None:
        while not done.wait(_INTERVAL):
            for worker, peak in peaks.items():
                for kind, size in _memory(worker).items():
                    peak[kind] = max(peak[kind], size)

    watcher = Thread(target=watch)
    watcher.start()
    try:
        yield peaks
    finally:
        done.set()
        watcher.join()


def _memory(process_id: int) -> dict[str, float]:
    """MB of each kind that a process has now. Source: proc_pid_smaps(5); the sizes there are in KiB."""
    lines = Path(f"/proc/{process_id}/smaps_rollup").read_text().splitlines()[1:]
    sizes = dict(line.split(":") for line in lines)
    return {kind: int(sizes[kind].split()[0]) * 1024 / 1e6 for kind in _KINDS}
