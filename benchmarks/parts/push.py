"""`tvix-store push` of a closure, first and again, against `nix copy`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.bench import TVIX_STORE, Bench, timed
from benchmarks.closure import Closure
from benchmarks.daemon import running_daemon
from benchmarks.figures import SECONDS, Row, Series, Target
from benchmarks.link import running_link
from benchmarks.nginx import running_nginx

_ROUND_TRIP = 0.02
"""Seconds."""
_KNOWN = 0.5
"""Seconds that a push may take which has nothing to do."""


def measure(bench: Bench) -> Sequence[Row]:
    nix, closure, count = Closure.built(bench)

    def twice(who: str, *command: str) -> dict[str, float]:
        figures = {}
        for when in ("first", "again"):
            nix.forget()
            figures[f"{who}, {when}"] = timed(*command, closure, environment=nix.environment)
        return figures

    def push(who: str, address: str) -> dict[str, float]:
        return twice(who, TVIX_STORE, "push", "--quiet", "--to", f"http://{address}")

    def copy(who: str, address: str) -> dict[str, float]:
        return twice(who, "nix", "copy", "--to", f"http://{address}?compression=zstd")

    def pushed(directory: Path) -> dict[str, float]:
        with running_daemon(directory / "store", "--store-dir", nix.store_dir) as daemon:
            return push("push", daemon.address)

    def pushed_far(directory: Path) -> dict[str, float]:
        with (
            running_daemon(directory / "store", "--store-dir", nix.store_dir) as daemon,
            running_link(daemon.address, _ROUND_TRIP) as link,
        ):
            return push("push, far", link.address)

    def to_nginx(directory: Path) -> dict[str, float]:
        with running_nginx(directory / "nginx") as url:
            return copy("nginx", url.removeprefix("http://"))

    def to_nginx_far(directory: Path) -> dict[str, float]:
        with running_nginx(directory / "nginx") as url, running_link(url.removeprefix("http://"), _ROUND_TRIP) as link:
            return copy("nginx, far", link.address)

    def to_daemon(directory: Path) -> dict[str, float]:
        with running_daemon(directory / "store", "--store-dir", nix.store_dir) as daemon:
            return copy("daemon", daemon.address)

    measured = bench.interleaved(pushed, to_nginx, to_daemon, pushed_far, to_nginx_far)

    def row(work: str, ours: str, peer: str, by: str, target: Target | None = None) -> Row:
        pushing = Series("tvix-store push, to our daemon", measured[ours])
        return Row(f"push {count} paths of 60 kB, {work}", SECONDS, pushing, Series(by, measured[peer]), target)

    nginx, half = "nix copy, zstd, to nginx", Target("at most", 0.5)
    return [
        row("first", "push, first", "nginx, first", nginx, half),
        row("first", "push, first", "daemon, first", "nix copy, zstd, to our daemon"),
        row("again", "push, again", "nginx, again", nginx),
        row("first, round trip 20 ms", "push, far, first", "nginx, far, first", nginx, half),
        row("again, round trip 20 ms", "push, far, again", "nginx, far, again", nginx),
        Row(
            f"push {count} known paths",
            SECONDS,
            Series("tvix-store push, to our daemon", measured["push, again"]),
            target=Target("at most", _KNOWN),
        ),
    ]
