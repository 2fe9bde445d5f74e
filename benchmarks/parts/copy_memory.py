"""Memory of all that take part in a copy of large blobs, from daemon to daemon."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from itertools import cycle
from pathlib import Path

from benchmarks.bench import TVIX_STORE, Bench, output, say
from benchmarks.daemon import running_daemon
from benchmarks.figures import MEGABYTES, Row, Series, Target
from benchmarks.usage import usage
from benchmarks.workers import KINDS, memory_peaks

_GIB = 1 << 30
_PIECE = 16 << 20
_SIZES = (1, 2, 5, 4, 3)
"""GiB of files, until all are there."""


def measure(bench: Bench) -> Sequence[Row]:
    inputs = bench.fresh()
    store = f"local://{inputs}/store"
    for number, size in enumerate(_sizes(bench.copied_gib)):
        say(f"importing a file of {size} GiB")
        file = inputs / f"noise-{number}"
        _write_noise(file, (size << 20) if bench.quick else size * _GIB)
        output(TVIX_STORE, "import", "--store", store, file, environment={"XDG_CACHE_HOME": str(inputs / "cache")})
        file.unlink()
    with running_daemon(inputs / "store") as sender, running_daemon(inputs / "copy") as receiver:
        with memory_peaks([*sender.workers, *receiver.workers]) as peaks:
            client = usage(TVIX_STORE, "copy", "--from", sender.url, "--to", receiver.url, "--all")
        workers = {kind: [max(peaks[each][kind] for each in daemon.workers) for daemon in (sender, receiver)] for kind in KINDS}
    say(f"copying took {client.seconds:.1f} s, and its client {client.core_seconds:.1f} s of the cores")
    shutil.rmtree(inputs)  # a few large files
    work = f"peak {{}} of {{}}, copy of {bench.copied_gib} GiB of blobs"
    target = Target("under", 300)
    return [
        Row(work.format("RSS", "the client"), MEGABYTES, Series("tvix-store copy", [client.peak]), target=target),
        *(
            Row(
                work.format(kind.upper(), f"a worker that {does}"),
                MEGABYTES,
                Series("tvix-store daemon", [peak]),
                target=target if kind == "Rss" else None,
            )
            for kind, pair in workers.items()
            for does, peak in zip(("sends", "receives"), pair, strict=True)
        ),
    ]


def _sizes(gib: int) -> Iterator[int]:
    """Sizes of files that are so large together."""
    for size in cycle(_SIZES):
        if gib <= 0:
            return
        yield min(size, gib)
        gib -= size


def _write_noise(path: Path, size: int) -> None:
    with path.open("wb") as file:
        for start in range(0, size, _PIECE):
            file.write(os.urandom(min(_PIECE, size - start)))
