"""What the workers of a daemon use: memory, and seconds of their cores."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

KINDS = ("Rss", "Pss")
_INTERVAL = 0.1
"""Seconds between two looks."""


@contextmanager
def memory_peaks(workers: Sequence[int]) -> Iterator[dict[int, dict[str, float]]]:
    """Watch processes while the body runs; the most MB of each kind that each of them had, by process id."""
    peaks = {worker: dict.fromkeys(KINDS, 0.0) for worker in workers}
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


def core_seconds(processes: Sequence[int]) -> float:
    """What processes have used of the cores since they started, in steps of 10 ms. Source: proc_pid_stat(5)."""
    ticks = 0
    for process in processes:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])  # utime, stime
    return ticks / os.sysconf("SC_CLK_TCK")


def _memory(process_id: int) -> dict[str, float]:
    """MB of each kind that a process has now. Source: proc_pid_smaps(5); the sizes there are in KiB."""
    lines = Path(f"/proc/{process_id}/smaps_rollup").read_text().splitlines()[1:]
    sizes = dict(line.split(":") for line in lines)
    return {kind: int(sizes[kind].split()[0]) * 1024 / 1e6 for kind in KINDS}
