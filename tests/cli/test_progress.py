"""Progress: a line that changes on a terminal, and elsewhere one more line every 10 seconds."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import termios
import time
from pathlib import Path

import pytest

from tests.cli.program import TVIX_STORE, Program
from tvix_store.cli import progress
from tvix_store.cli.invocation import Invocation
from tvix_store.operations.trees.open_directory import OpenDirectory, remove_tree
from tvix_store.testing.trees import TreeFile, nar

CLEAR = b"\r\x1b[K"


def on_a_terminal(
    tvix_store: Program, *arguments: str | Path, code: int = 0, slowly: bytes = b"", columns: int = 80
) -> tuple[bytes, bytes]:
    """What the program prints, and what a terminal that is its standard error gets. Its input comes `slowly`, in two halves."""
    mine, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    with subprocess.Popen(
        [TVIX_STORE, *arguments],
        cwd=tvix_store.directory,
        env={**tvix_store.environment, "TERM": "xterm"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=its,
    ) as running:
        os.close(its)
        assert running.stdin is not None
        running.stdin.write(slowly[: len(slowly) // 2])
        running.stdin.flush()
        seen = b""
        while slowly and CLEAR not in seen:
            seen += os.read(mine, 4096)
        running.stdin.write(slowly[len(slowly) // 2 :])
        running.stdin.close()
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


@pytest.mark.parametrize("columns", [40, 80])
def test_a_person_sees_how_an_import_goes(tvix_store: Program, columns: int) -> None:
    archive = nar({b"a": TreeFile(bytes(3_000_000))})
    _, seen = on_a_terminal(tvix_store, "import", "--nar", "-", "--name", "tree", slowly=archive, columns=columns)
    *lines, rest = seen.split(CLEAR)
    assert lines[1].startswith(b"tree  1.")
    assert b"MiB" in lines[1]
    assert b"MiB/s" in lines[1]
    assert all(len(line) < columns for line in lines[1:])
    assert b" new, " in rest


def test_a_person_sees_only_the_error_of_an_import_that_fails(tvix_store: Program) -> None:
    _, seen = on_a_terminal(tvix_store, "import", "nothing", code=4)
    assert seen.removeprefix(CLEAR) == b"tvix-store: error: cannot open nothing: No such file or directory\r\n"


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


def test_a_person_may_want_quiet(tvix_store: Program, tree: Path) -> None:
    assert on_a_terminal(tvix_store, "--quiet", "import", tree)[1] == b""


def test_a_log_gets_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(progress, "_TOLD_EVERY", 0.05)
    with progress.progress_bar(Invocation(), "a\x1btree", 4 << 20) as bar:
        assert not bar.visible
        bar.add(2, 3 << 20)
        said = _heard(capsys)
    assert said[0].startswith("tvix-store: a\\x1btree: 75 %, 3.00 MiB of 4.00 MiB, ")
    assert said[0].endswith(", 2 files")


def test_a_log_hears_of_the_steps_of_a_collection(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(progress, "_TOLD_EVERY", 0.05)
    with progress.step_bar(Invocation()) as step:
        assert step is not None
        step("marked", 30, 120)
        step("", 0, 0)
        assert _heard(capsys)[0].startswith("tvix-store: marked: 25 %, ")


def test_what_is_quick_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.progress_bar(Invocation(), "tree") as bar:
        bar.add(1, 1000)
    assert capsys.readouterr().err == ""


def _heard(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The lines of progress, once there are some."""
    until = time.monotonic() + 10
    while not (said := capsys.readouterr().err) and time.monotonic() < until:
        time.sleep(0.01)
    return said.splitlines()
