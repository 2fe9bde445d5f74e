"""`nix copy` to and from the cache, against plain file servers."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.bench import Bench, timed
from benchmarks.closure import Closure
from benchmarks.daemon import running_daemon
from benchmarks.figures import SECONDS, Row, Series, Target
from benchmarks.nginx import running_nginx
from benchmarks.plain_server import running_plain_server
from tests.http.nix import Nix

_COMPRESSIONS = ("none", "zstd")


@dataclass(frozen=True, slots=True)
class _Load:
    """What is copied: a store path with its closure."""

    work: str
    path: str


def measure(bench: Bench) -> Sequence[Row]:
    nix, closure, count = Closure.built(bench)
    loads = (_Load(f"a closure of {count} paths", closure), _Load("Big", nix.add(bench.big)))
    return [row for load in loads for compression in _COMPRESSIONS for row in _measure(bench, nix, load, compression)]


def _measure(bench: Bench, nix: Nix, load: _Load, compression: str) -> Sequence[Row]:
    how = f"{load.work}, {compression}"

    def copy(url: str, directory: Path) -> tuple[float, float]:
        """Seconds to the server, and from there to an empty store."""
        nix.forget()
        there = timed("nix", "copy", "--to", f"{url}?compression={compression}", load.path, environment=nix.environment)
        puller = Nix(directory / "puller", nix.store_dir)
        command = ("nix", "copy", "--no-check-sigs", "--from", url, load.path)
        back = timed(*command, environment=puller.environment)
        puller("nix-store", "--verify-path", load.path)
        return there, back

    def nginx(directory: Path) -> dict[str, float]:
        with running_nginx(directory / "nginx") as url:
            there, back = copy(url, directory)
        return _and_tidy(directory, {f"nginx, to: {how}": there, f"nginx, from: {how}": back})

    def plain(directory: Path) -> dict[str, float]:
        with running_plain_server(directory / "plain") as url:
            there, back = copy(url, directory)
        return _and_tidy(directory, {f"files, to: {how}": there, f"files, from: {how}": back})

    def ours(directory: Path) -> dict[str, float]:
        options = ("--store-dir", nix.store_dir, "--nar-compression", compression)
        with running_daemon(directory / "store", *options) as daemon:
            there, back = copy(daemon.cache_url, directory)
        return _and_tidy(directory, {f"ours, to: {how}": there, f"ours, from: {how}": back})

    measured = bench.interleaved(nginx, plain, ours)

    def row(direction: str, peer: str, by: str, target: Target | None = None) -> Row:
        ours, peers = (measured[f"{who}, {direction}: {how}"] for who in ("ours", peer))
        return Row(f"nix copy --{direction} {how}", SECONDS, Series("tvix-store daemon", ours), Series(by, peers), target)

    files = ("files", "files, same engine")
    return [
        row("to", "nginx", "nginx", Target("at most", 1)),
        row("to", *files),
        row("from", "nginx", "nginx"),
        row("from", *files),
    ]


def _and_tidy(directory: Path, figures: dict[str, float]) -> dict[str, float]:
    """Big would fill the disk; a thousand small files are few enough to delete."""
    for path in directory.iterdir():
        shutil.rmtree(path)
    return figures
