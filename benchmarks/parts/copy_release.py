"""Copying the next patch release of a package to where the last one is: bytes on the wire, and core time."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.bench import TVIX_STORE, Bench, Contestant, output, say
from benchmarks.daemon import running_daemon
from benchmarks.figures import MEGABYTES, SECONDS, Row, Series, Target
from benchmarks.go_releases import Release, go_releases
from benchmarks.link import running_link
from benchmarks.release_peers import casync, nix_copy, rsync
from benchmarks.usage import usage
from benchmarks.workers import core_seconds

_MOST_MB = 16
"""Goal for deltas."""
_KINDS = {"chunks": "--no-delta", "deltas": "--delta"}
_WAYS = {
    ("gRPC", "to"): "grpc+http://{}",
    ("gRPC", "from"): "grpc+http://{}",
    ("HTTP", "to"): "connect+http://{}",
    ("HTTP", "from"): "connect+http://{}",
    ("cache", "from"): "nix+http://{}?require-signatures=false",
}
"""Addresses of a daemon; what is behind the first is a binary cache."""
_PEERS = (
    ("chunks", "nix copy", ("to", "from")),
    ("chunks", "casync", ("from",)),
    ("deltas", "rsync", ("to", "from")),
)


@dataclass(frozen=True, slots=True)
class _Stores:
    """Two local stores to copy: with the older release, and with both. `path` is the newer one, `megabytes` its new chunks."""

    older: Path
    both: Path
    path: str
    megabytes: float


def measure(bench: Bench) -> Sequence[Row]:
    older, newer = go_releases(bench)
    stores = _filled(bench.fresh(), older, newer)
    say(f"the chunks that differ have {stores.megabytes:.2f} MB")
    contestants: list[Contestant] = [
        partial(_ours, stores, protocol, direction, kind) for kind in _KINDS for protocol, direction in _WAYS
    ]
    peers: list[Contestant] = [
        lambda directory: rsync(directory, older, newer),
        lambda directory: casync(directory, older, newer),
        lambda directory: nix_copy(directory, older, newer, shutil.copytree(stores.older, directory / "store")),
    ]
    measured = bench.interleaved(*contestants, *peers)

    rows = []
    for protocol, direction in _WAYS:
        chunks, deltas = (f"{direction} a daemon, {protocol}, {kind}" for kind in _KINDS)
        differ = Series("new chunks as stored", [stores.megabytes] * bench.rounds)
        by = "tvix-store copy"
        rows += [
            Row(f"bytes of a release {chunks}", MEGABYTES, Series(by, measured[chunks]), differ, Target("at most", 1.1)),
            Row(f"bytes of a release {deltas}", MEGABYTES, Series(by, measured[deltas]), target=Target("at most", _MOST_MB)),
            Row(
                f"core time of a release {deltas}",
                SECONDS,
                Series(by, measured[f"cores: {deltas}"]),
                Series("with chunks", measured[f"cores: {chunks}"]),
                Target("at most", 2),
            ),
        ]
    for kind, peer, directions in _PEERS:
        for direction in directions:
            name = f"{direction} a daemon, gRPC, {kind}"
            theirs = Series(peer, measured[f"{peer}, {direction}"])
            rows.append(Row(f"bytes of a release {name}", MEGABYTES, Series("tvix-store copy", measured[name]), theirs))
    return rows


def _filled(directory: Path, older: Release, newer: Release) -> _Stores:
    cache = {"XDG_CACHE_HOME": str(directory / "cache")}

    def filled(store: Path, release: Release) -> tuple[str, int]:
        """The path of the release, and the stored bytes of all chunks."""
        at_store = ("--store", f"local://{store}")
        path = output(TVIX_STORE, "import", *at_store, "--name", release.name, release.tree, environment=cache).strip()
        return path, json.loads(output(TVIX_STORE, "stats", *at_store, "--json"))["storedBytes"]

    _, before = filled(directory / "older", older)
    shutil.copytree(directory / "older", directory / "both")
    path, after = filled(directory / "both", newer)
    return _Stores(directory / "older", directory / "both", path, (after - before) / 1e6)


def _ours(stores: _Stores, protocol: str, direction: str, kind: str, directory: Path) -> dict[str, float]:
    """Copy once. The side that sends has both releases; client and daemon are all processes that take part."""
    shutil.copytree(stores.older, directory / "older")
    there, here = (directory / "older", stores.both) if direction == "to" else (stores.both, directory / "older")
    with running_daemon(there) as daemon, running_link(daemon.address) as link:
        url, local = _WAYS[protocol, direction].format(link.address), f"local://{here}"
        source, target = (local, url) if direction == "to" else (url, local)
        served = [daemon.process_id, *daemon.workers]
        before = core_seconds(served)
        client = usage(TVIX_STORE, "copy", "--from", source, "--to", target, _KINDS[kind], stores.path)
        cores = client.core_seconds + core_seconds(served) - before
    name = f"{direction} a daemon, {protocol}, {kind}"
    return {name: link.total / 1e6, f"cores: {name}": cores}
