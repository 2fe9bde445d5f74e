"""The benchmarks work. How fast anything is, is not a matter of tests."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import bench
from benchmarks.__main__ import PARTS, main
from tests import preloaded, programs

COPIES = {"copy-release": 20, "copy-daemons": 4, "copy-known": 8, "copy-memory": 5}
ROWS = {"nar": 7, "narinfo": 4, "hostile": 5, "nix-copy": 16, "range": 6, "http-memory": 2, "push": 6, "collection": 6, **COPIES}
"""The parts that measure the binary cache and copies, and how many rows each has."""


def quick_options(part: str, directory: Path) -> list[str]:
    """Options to measure a part quickly below `directory`, with the rows in `figures.json` there."""
    for program in PARTS[part]:
        programs.require(program)
    return ["--quick", f"--work-directory={directory}", f"--json={directory / 'figures.json'}", part]


def test_a_quick_run_prints_a_table_and_writes_json(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks", *quick_options("export-tree", tmp_path)]
    done = subprocess.run(command, cwd=programs.ROOT, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr
    assert "| export Tree to a directory |" in done.stdout
    [row] = json.loads((tmp_path / "figures.json").read_text())["rows"]
    assert row["peer"]["by"] == "nix-store --restore"
    assert row["ratio"] == row["ours"]["values"][0] / row["peer"]["values"][0]


@pytest.mark.parametrize("part", ROWS)
def test_the_binary_cache_and_copies_are_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str) -> None:
    """In this process, with a forked program: where nothing is measured, a part starts programs for most of its time."""
    monkeypatch.setattr(bench, "start", preloaded.popen)
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)  # else `main` would
    main(quick_options(part, tmp_path), standalone_mode=False)
    [figures] = tmp_path.iterdir()  # nothing else is left
    rows = json.loads(figures.read_text())["rows"]
    assert len(rows) == ROWS[part]
    assert all(value > 0 for row in rows for value in row["ours"]["values"])
