"""`tvix-store push` of a closure, first and again, against `nix copy`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.bench import TVIX_STORE, Bench, say, timed
from benchmarks.daemon import running_daemon
from benchmarks.figures import SECONDS, Row, Series, Target
from benchmarks.nginx import running_nginx
from benchmarks.parts.nix_copy import CLOSURE
from tests.http.nix import Nix

_KNOWN = 0.5
"""Seconds that a push may take which has nothing to do."""


def measure(bench: Bench) -> Sequence[Row]:
    inputs = bench.fresh()
    nix = Nix(inputs / "nix", inputs / "nix/store")
    count = 5 if bench.quick else 200
    say(f"building {count} paths")
    [closure] = nix.build(CLOSURE % count)

    def twice(who: str, *command: str) -> dict[str, float]:
        figures = {}
        for when in ("first", "again"):
            nix.forget()
            figures[f"{who}, {when}"] = timed(*command, closure, environment=nix.environment)
        return figures

    def pushed(directory: Path) -> dict[str, float]:
        with running_daemon(directory / "store", "--store-dir", nix.store_dir) as daemon:
            return twice("push", TVIX_STORE, "push", "--quiet", "--to", daemon.cache_url)

    def to_nginx(directory: Path) -> dict[str, float]:
        with running_nginx(directory / "nginx") as url:
            return twice("nginx", "nix", "copy", "--to", f"{url}?compression=zstd")

    def to_daemon(directory: Path) -> dict[str, float]:
        with running_daemon(directory / "store", "--store-dir", nix.store_dir) as daemon:
            return twice("daemon", "nix", "copy", "--to", f"{daemon.cache_url}?compression=zstd")

    measured = bench.interleaved(pushed, to_nginx, to_daemon)

    def row(when: str, peer: str, by: str, target: Target | None = None) -> Row:
        ours = Series("tvix-store push, to our daemon", measured[f"push, {when}"])
        return Row(f"push {count} paths of 60 kB, {when}", SECONDS, ours, Series(by, measured[f"{peer}, {when}"]), target)

    return [
        row("first", "nginx", "nix copy, zstd, to nginx", Target("at most", 0.5)),
        row("first", "daemon", "nix copy, zstd, to our daemon"),
        row("again", "nginx", "nix copy, zstd, to nginx"),
        Row(
            f"push {count} known paths",
            SECONDS,
            Series("tvix-store push, to our daemon", measured["push, again"]),
            target=Target("at most", _KNOWN),
        ),
    ]
