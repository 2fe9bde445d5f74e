"""Two patch releases of the Go toolchain, one after the other: as Go's own module proxy gives them."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks.bench import Bench, output
from tests import programs

_MODULE = "golang.org/toolchain@v0.0.1-go{}.linux-amd64"
_VERSIONS = ("1.22.1", "1.22.2")


@dataclass(frozen=True, slots=True)
class Release:
    """A version of a package: the name of its store path, and its tree. Nobody may change the tree."""

    name: str
    tree: Path


def go_releases(bench: Bench) -> tuple[Release, Release]:
    """The older one and the newer one; each is fetched once, into Go's cache. In a quick run, parts of its small tree."""
    if bench.quick:  # not our own files: Python may write compiled ones beside them at any time
        return Release("src-1.1", bench.tree / "tvix_store/operations"), Release("src-1.2", bench.tree / "tvix_store")
    older, newer = (Release(f"go-{version}", _fetched(version)) for version in _VERSIONS)
    return older, newer


def _fetched(version: str) -> Path:
    go = programs.find("go") or (str(programs.OWN_GO) if programs.OWN_GO.exists() else None)
    if go is None:
        sys.exit("Two releases of Go are copied, and Go itself fetches them; install Go")
    # The module is a toolchain of its own: Go shall fetch it, and not become it.
    told = output(go, "mod", "download", "-json", _MODULE.format(version), environment={"GOTOOLCHAIN": "local", "GOWORK": "off"})
    return Path(os.fspath(json.loads(told)["Dir"]))
