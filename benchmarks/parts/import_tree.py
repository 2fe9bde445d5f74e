"""Importing a tree into an empty store, and again; how much is stored."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.bench import TVIX_STORE, Bench, apparent_size, timed
from benchmarks.figures import MEGABYTES, SECONDS, Row, Series, Target


def measure(bench: Bench) -> Sequence[Row]:
    def nix(directory: Path) -> dict[str, float]:
        at_store = ("nix-store", "--store", directory)
        timed(*at_store, "--init")
        return {"nix": timed(*at_store, "--add", bench.tree)}

    def restic(directory: Path) -> dict[str, float]:
        repository = directory / "repository"
        at_repository = ("restic", "--repo", repository, "--cache-dir", directory / "cache")
        password = {"RESTIC_PASSWORD": "bench"}
        timed(*at_repository, "init", environment=password)
        seconds = timed(*at_repository, "backup", bench.tree, environment=password)
        return {"restic": seconds, "restic's bytes": apparent_size(repository)}

    def borg(directory: Path) -> dict[str, float]:
        repository = directory / "repository"
        home = {"BORG_BASE_DIR": str(directory)}
        timed("borg", "init", "--encryption=none", repository, environment=home)
        seconds = timed("borg", "create", f"{repository}::tree", bench.tree, environment=home)
        return {"borg": seconds, "borg's bytes": apparent_size(repository)}

    def ours(directory: Path) -> dict[str, float]:
        store = directory / "store"
        command = (TVIX_STORE, "import", "--store", f"local://{store}", bench.tree)
        cache = {"XDG_CACHE_HOME": str(directory / "cache")}
        first = timed(*command, environment=cache)
        size = apparent_size(store)
        again = timed(*command, environment=cache)
        return {
            "ours": first,
            "our bytes": size,
            "ours again": again,
            "ours reread": timed(*command, "--reread", environment=cache),
        }

    measured = bench.interleaved(nix, ours, restic, borg)

    def sizes(name: str) -> list[float]:
        return [value / 1e6 for value in measured[name]]

    first = Series("tvix-store import", measured["ours"])
    stored = Series("tvix-store import", sizes("our bytes"))
    return [
        Row("import Tree", SECONDS, first, Series("nix-store --add", measured["nix"]), Target("at most", 0.75)),
        Row("import Tree", SECONDS, first, Series("restic backup", measured["restic"]), Target("at most", 0.6)),
        Row("import Tree", SECONDS, first, Series("borg create", measured["borg"])),
        Row("stored size of Tree", MEGABYTES, stored, Series("restic", sizes("restic's bytes")), Target("at most", 1)),
        Row("stored size of Tree", MEGABYTES, stored, Series("borg", sizes("borg's bytes"))),
        Row(
            "import Tree again",
            SECONDS,
            Series("tvix-store import", measured["ours again"]),
            Series("our first import", measured["ours"]),
            Target("at most", 0.35),
        ),
        Row(
            "import Tree again, all read",
            SECONDS,
            Series("tvix-store import --reread", measured["ours reread"]),
            Series("our first import", measured["ours"]),
        ),
    ]
