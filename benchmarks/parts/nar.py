"""GET of whole NARs, against making one of the files, and against sending a file."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

from benchmarks.bench import TVIX_STORE, Bench, output, say, timed
from benchmarks.daemon import running_daemon
from benchmarks.figures import SECONDS, Row, Series, Target
from benchmarks.http_client import download, nar_url, seconds_to_get
from benchmarks.plain_server import running_plain_server
from tvix_store import compression

_LATER = 3
"""How often a round repeats what takes a fraction of a second; the median counts."""
_PIECE = 1024 * 1024


def measure(bench: Bench) -> Sequence[Row]:
    frames = _check(bench)
    big = bench.big

    def later(seconds: Callable[[], float]) -> float:
        return median(seconds() for _ in range(1 if bench.quick else _LATER))

    def nix(directory: Path) -> dict[str, float]:
        return {
            f"nix-store --dump of {name}": later(lambda path=path: _seconds_to_dump(path))  # type: ignore[misc]
            for name, path in (("Tree", bench.tree), ("Big", big))
        }

    def plain(directory: Path) -> dict[str, float]:
        with running_plain_server(frames.parent) as url:
            ways = {"read": f"{url}/{frames.name}", "pathsend": f"{url}/{frames.name}?pathsend"}
            return {way: later(lambda url=url: seconds_to_get(url)) for way, url in ways.items()}  # type: ignore[misc]

    def ours(directory: Path) -> dict[str, float]:
        store = directory / "store"
        tree_path, big_path = output(TVIX_STORE, "import", "--store", f"local://{store}", bench.tree, big).split()
        seconds = {}
        for name, path, kind in (("Tree", tree_path, "none"), ("Tree", tree_path, "zstd"), ("Big", big_path, "none")):
            with running_daemon(store) as daemon:
                url = nar_url(daemon.cache_url, path, kind)
                seconds[f"first {kind} of {name}"] = seconds_to_get(url)
                seconds[f"{kind} of {name}"] = later(lambda url=url: seconds_to_get(url))  # type: ignore[misc]
        shutil.rmtree(store)  # a few large files
        return seconds

    measured = bench.interleaved(nix, plain, ours)

    def row(work: str, name: str, peer: str, by: str, most: float | None = None) -> Row:
        target = Target("at most", most) if most else None
        return Row(work, SECONDS, Series("tvix-store daemon", measured[name]), Series(by, measured[peer]), target)

    rows = []
    for name in ("Tree", "Big"):
        dump = (f"nix-store --dump of {name}", "nix-store --dump")
        rows.append(row(f"GET the NAR of {name}, uncompressed", f"none of {name}", *dump, 4))
        rows.append(row(f"GET the NAR of {name}, uncompressed, the first time", f"first none of {name}", *dump))
    plain_file = ("read", "a file, same engine")
    return [
        *rows,
        row("GET the NAR of Tree, zstd", "zstd of Tree", *plain_file, 2),
        row("GET the NAR of Tree, zstd", "zstd of Tree", "pathsend", "a file, pathsend"),
        row("GET the NAR of Tree, zstd, the first time", "first zstd of Tree", *plain_file),
    ]


def _seconds_to_dump(path: Path) -> float:
    return timed("sh", "-c", 'nix-store --dump "$0" > ' + os.devnull, path)


def _check(bench: Bench) -> Path:
    """Compare what the cache sends, in both ways, with what Nix makes; the file of frames that it sends as zstd."""
    inputs = bench.fresh()
    store = inputs / "store"
    path = output(TVIX_STORE, "import", "--store", f"local://{store}", bench.tree).strip()
    nar, frames = inputs / "nar", inputs / "frames"
    with running_daemon(store) as daemon:
        download(nar_url(daemon.cache_url, path, "none"), nar)
        for _ in range(2):  # with the plan in the making, and with the plan
            download(nar_url(daemon.cache_url, path, "zstd"), frames)
            if not _sha256_of_dump(bench.tree) == _sha256(nar, "none") == _sha256(frames, "zstd"):
                sys.exit("the NARs of the cache differ from that of nix-store --dump")
    say(f"the NAR has {nar.stat().st_size / 1e6:.1f} MB, as zstd {frames.stat().st_size / 1e6:.1f} MB")
    return frames


def _sha256(file: Path, kind: str) -> str:
    """Of what is compressed in a file."""
    hashed = hashlib.sha256()
    decompressor = compression.decompressor(kind)
    with file.open("rb") as opened:
        while data := opened.read(_PIECE):
            for piece in decompressor.feed(data):
                hashed.update(piece)
    decompressor.finish()
    return hashed.hexdigest()


def _sha256_of_dump(path: Path) -> str:
    with subprocess.Popen(["nix-store", "--dump", path], stdout=subprocess.PIPE) as process:
        assert process.stdout
        return hashlib.file_digest(process.stdout, "sha256").hexdigest()  # type: ignore[arg-type]
