"""The benchmarks work. How fast anything is, is not a matter of tests."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests import programs


def test_a_quick_run_prints_a_table_and_writes_json(tmp_path: Path) -> None:
    programs.require("nix-store")
    file = tmp_path / "figures.json"
    options = ["--quick", f"--work-directory={tmp_path}", f"--json={file}"]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", *options, "export-tree"],
        cwd=programs.ROOT,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "| export Tree to a directory |" in done.stdout
    [row] = json.loads(file.read_text())["rows"]
    assert row["peer"]["by"] == "nix-store --restore"
    assert row["ratio"] == row["ours"]["values"][0] / row["peer"]["values"][0]
    assert list(tmp_path.iterdir()) == [file]
