"""Memory of the daemon while many clients of the binary cache fetch and push NARs."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from benchmarks.bench import TVIX_STORE, Bench, output, say
from benchmarks.daemon import running_daemon
from benchmarks.figures import MEGABYTES, Row, Series, Target
from benchmarks.http_client import nar_url, seconds_to_get, upload
from benchmarks.nar_files import write_nar
from benchmarks.workers import KINDS, memory_peaks

_PULLED = ("none", "zstd") * 4
_PUSHED = ("xz", "zstd", "none", "xz", "zstd", "none", "xz", "zstd")


def measure(bench: Bench) -> Sequence[Row]:
    inputs = bench.fresh()
    path = output(TVIX_STORE, "import", "--store", f"local://{inputs}/store", bench.tree).strip()
    say(f"making {len(_PUSHED)} NARs to push")
    nars = [write_nar(compression, bench.big_size, inputs) for compression in _PUSHED]
    with running_daemon(inputs / "store") as daemon, memory_peaks(daemon.workers) as peaks:
        urls = [nar_url(daemon.cache_url, path, compression) for compression in _PULLED]
        start = time.perf_counter()
        fetched = _push_and_pull(urls, [(file, f"{daemon.cache_url}/nar/{name}") for file, name in nars])
        seconds = time.perf_counter() - start
    say(f"pushing took {seconds:.1f} s; {fetched} NARs were fetched meanwhile")
    shutil.rmtree(inputs)  # 14 GB in a few large files
    work = f"peak {{}} of a worker, {len(_PULLED)} GET NARs and {len(_PUSHED)} push"
    rss, pss = (Series("tvix-store daemon", [max(worker[kind] for worker in peaks.values())]) for kind in KINDS)
    return [
        Row(work.format("RSS"), MEGABYTES, rss, target=Target("under", 250)),
        Row(work.format("PSS"), MEGABYTES, pss),
    ]


def _push_and_pull(urls: Sequence[str], uploads: Sequence[tuple[Path, str]]) -> int:
    """Push each file once, and GET each URL over and over until that is done; how many were fetched. Each has a connection."""
    with ThreadPoolExecutor(len(urls) + len(uploads)) as clients:
        pushes = [clients.submit(upload, file, url) for file, url in uploads]
        pulls = [clients.submit(_get_until_done, url, pushes) for url in urls]
        for push in pushes:
            push.result()
        return sum(pull.result() for pull in pulls)


def _get_until_done(url: str, pushes: Sequence[Future[None]]) -> int:
    """GET `url` at least once."""
    times = 0
    while not (times and all(push.done() for push in pushes)):
        seconds_to_get(url)
        times += 1
    return times
