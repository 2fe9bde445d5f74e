"""What Ctrl-C, SIGTERM and readers who stop reading do to the program."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.cli.program import TVIX_STORE, Program


@pytest.fixture
def path(tvix_store: Program, tmp_path: Path) -> str:
    """The store path of a file that is larger than any pipe's buffer."""
    (tmp_path / "big").write_bytes(os.urandom(3_000_000))
    return tvix_store("import", "big")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_ends_a_command_that_waits_for_its_reader(
    tvix_store: Program, path: str, number: signal.Signals, code: int
) -> None:
    with tvix_store.start("cat", path) as running:
        assert running.stdout is not None
        assert running.stderr is not None
        running.stdout.read(1)
        running.send_signal(number)
        assert running.wait(10) == code
        assert running.stderr.read() == b""


@pytest.mark.parametrize("command", [("path-info", "put"), ("key", "public"), ("copy", "--from-json", "-")])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_command_that_waits_for_its_input(
    tvix_store: Program, command: tuple[str, ...], number: signal.Signals, code: int
) -> None:
    with subprocess.Popen(
        [TVIX_STORE, *command], stdin=subprocess.PIPE, stderr=subprocess.PIPE, env=tvix_store.environment
    ) as running:
        time.sleep(0.7)  # until it reads, and a little longer
        assert running.poll() is None
        running.send_signal(number)
        assert running.wait(10) == code
        assert running.stderr is not None
        assert running.stderr.read() == b""


@pytest.mark.parametrize("form", ["dir", "nar", "tar"])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_leaves_no_part_of_an_export(
    tvix_store: Program, tmp_path: Path, form: str, number: signal.Signals, code: int
) -> None:
    """It comes when a part is on the disk. An export that is over by then is whole."""
    size = 100_000_000
    with (tmp_path / "large").open("wb") as file:
        file.truncate(size)
    path = tvix_store("import", "large")
    before = set(os.listdir(tmp_path))
    interrupted = 0
    while not interrupted:
        with tvix_store.start("export", "--format", form, path, "out") as running:
            while running.poll() is None and set(os.listdir(tmp_path)) == before:
                time.sleep(0.001)
            running.send_signal(number)
            ended = running.wait(20)
            assert running.stderr is not None
            assert running.stderr.read() == b""
        if ended == 0:
            assert (tmp_path / "out").stat().st_size >= size
            (tmp_path / "out").unlink()
        else:
            assert ended == code
            interrupted += 1
        assert set(os.listdir(tmp_path)) == before


def test_a_signal_before_anything_is_written_leaves_nothing(tvix_store: Program, path: str) -> None:
    """An export that is over by then is whole. `timeout` says 124 even if the program ended well as its signal came."""
    before = set(tvix_store.directory.iterdir())
    whole = (tvix_store.directory / "big").read_bytes()
    for delay in ("0.1", "0.15", "0.2"):
        ended = tvix_store.run("export", path, "out", under=("timeout", "--signal=INT", delay))
        out = tvix_store.directory / "out"
        assert ended.own_error == ""
        assert ended.code in (0, 124)
        if out.exists() or ended.code == 0:
            assert out.read_bytes() == whole
            out.unlink()
        assert set(tvix_store.directory.iterdir()) == before


def test_a_reader_who_stops_reading_is_no_error(tvix_store: Program, path: str) -> None:
    command = f'{TVIX_STORE} cat {path} | head --bytes=5; echo " ${{PIPESTATUS[@]}}"'
    done = subprocess.run(["bash", "-c", command], capture_output=True, env=tvix_store.environment, check=True)
    assert done.stdout[5:] == b" 141 0\n"
    assert done.stderr == b""
