"""Exporting a tree to a directory, against restoring its NAR."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.bench import TVIX_STORE, Bench, output, timed
from benchmarks.figures import SECONDS, Row, Series, Target


def measure(bench: Bench) -> Sequence[Row]:
    inputs = bench.fresh()
    nar = inputs / "tree.nar"
    timed("sh", "-c", 'nix-store --dump "$0" > "$1"', bench.tree, nar)
    store = f"local://{inputs}/store"
    store_path = output(TVIX_STORE, "import", "--store", store, bench.tree).strip()

    def nix(directory: Path) -> dict[str, float]:
        return {"nix": timed("nix-store", "--restore", directory / "tree", stdin=nar)}

    def ours(directory: Path) -> dict[str, float]:
        return {"ours": timed(TVIX_STORE, "export", "--store", store, store_path, directory / "tree")}

    measured = bench.interleaved(nix, ours)
    return [
        Row(
            "export Tree to a directory",
            SECONDS,
            Series("tvix-store export", measured["ours"]),
            Series("nix-store --restore", measured["nix"]),
            Target("at most", 1.5),
        )
    ]
