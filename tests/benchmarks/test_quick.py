"""The benchmarks work. How fast anything is, is not a matter of tests."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.__main__ import PARTS
from tests import programs

COPIES = {"copy-release": 20, "copy-daemons": 4, "copy-known": 8, "copy-memory": 5}
ROWS = {"nar": 7, "narinfo": 4, "hostile": 5, "nix-copy": 16, "range": 6, "http-memory": 2, "push": 6, "collection": 6, **COPIES}
"""The parts that measure the binary cache and copies, and how many rows each has."""


def quick_run(part: str, directory: Path) -> tuple[str, list[Any]]:
    """The table and the rows of a part, which leaves nothing else behind."""
    for program in PARTS[part]:
        programs.require(program)
    file = directory / "figures.json"
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--quick", f"--work-directory={directory}", f"--json={file}", part],
        cwd=programs.ROOT,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert list(directory.iterdir()) == [file]
    return done.stdout, json.loads(file.read_text())["rows"]


def test_a_quick_run_prints_a_table_and_writes_json(tmp_path: Path) -> None:
    table, [row] = quick_run("export-tree", tmp_path)
    assert "| export Tree to a directory |" in table
    assert row["peer"]["by"] == "nix-store --restore"
    assert row["ratio"] == row["ours"]["values"][0] / row["peer"]["values"][0]


@pytest.mark.parametrize("part", ROWS)
def test_the_binary_cache_and_copies_are_measured(tmp_path: Path, part: str) -> None:
    _, rows = quick_run(part, tmp_path)
    assert len(rows) == ROWS[part]
    assert all(value > 0 for row in rows for value in row["ours"]["values"])
