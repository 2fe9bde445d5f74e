"""The progress bar: seen on a terminal, by nobody else."""

from __future__ import annotations

import os
import pty
import subprocess
from pathlib import Path

from tests.cli.program import TVIX_STORE, Program
from tvix_store.operations.trees.open_directory import OpenDirectory, remove_tree


def on_a_terminal(tvix_store: Program, *arguments: str | Path, code: int = 0) -> tuple[bytes, bytes]:
    """What the program prints, and what a terminal that is its standard error gets."""
    mine, its = pty.openpty()
    with subprocess.Popen(
        [TVIX_STORE, *arguments],
        cwd=tvix_store.directory,
        env={**tvix_store.environment, "TERM": "xterm"},
        stdout=subprocess.PIPE,
        stderr=its,
    ) as running:
        os.close(its)
        seen = b""
        try:
            while piece := os.read(mine, 4096):
                seen += piece
        except OSError:  # so ends a terminal
            pass
        os.close(mine)
        assert running.stdout is not None
        output = running.stdout.read()
    assert running.returncode == code
    return output, seen


def test_a_person_sees_how_an_import_goes(tvix_store: Program, tree: Path) -> None:
    output, seen = on_a_terminal(tvix_store, "import", tree)
    assert output.decode().splitlines() == [tvix_store("list")]
    assert b"tree" in seen
    assert b"MiB" in seen
    assert b"5 files" in seen


def test_a_person_sees_only_the_error_of_an_import_that_fails(tvix_store: Program) -> None:
    _, seen = on_a_terminal(tvix_store, "import", "nothing", code=3)
    assert seen.endswith(b"tvix-store: error: cannot read nothing: No such file or directory\r\n")
    assert b"Traceback" not in seen


def test_a_person_sees_how_an_import_of_a_deep_tree_goes(tvix_store: Program) -> None:
    deep = tvix_store.directory / "deep"
    deep.mkdir()
    with OpenDirectory(deep) as place:
        for _ in range(1500):
            os.mkdir("d", dir_fd=place.fd)
            place.enter(b"d")
    _, seen = on_a_terminal(tvix_store, "import", deep)
    remove_tree(deep)  # pytest cannot
    assert b"Traceback" not in seen


def test_a_person_sees_how_an_export_goes(tvix_store: Program, tree: Path) -> None:
    path = tvix_store("import", tree)
    _, seen = on_a_terminal(tvix_store, "export", path, "out")
    assert b"5 files" in seen


def test_a_person_sees_how_verifying_goes(tvix_store: Program, tree: Path) -> None:
    path = tvix_store("import", tree)
    output, seen = on_a_terminal(tvix_store, "path-info", "verify", "--all")
    assert output.decode().splitlines() == [f"{path}: good"]
    assert b"5 files" in seen


def test_a_person_may_want_quiet(tvix_store: Program, tree: Path) -> None:
    assert on_a_terminal(tvix_store, "--quiet", "import", tree)[1] == b""
