"""`tvix-store daemon`, as far as the command line goes."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from tests.cli.program import Program


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_daemon_serves_until_it_is_told_to_end(tvix_store: Program, number: signal.Signals) -> None:
    with tvix_store.start("daemon", "--quiet", "-l", "localhost:0", "-l", tvix_store.directory / "socket") as running:
        assert running.stderr is not None
        ready = running.stderr.readline()
        assert ready.startswith(b"READY 127.0.0.1:")
        assert (tvix_store.directory / "socket").is_socket()
        running.send_signal(number)
        assert running.wait(10) == 0
        assert running.stderr.read() == b""


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["-l", "nonsense"], 3, "not an address to listen on"),
        (["-l", "0.0.0.0:0"], 3, "--allow-remote"),
        (["--workers", "0"], 2, "--workers"),
        (["--workers", "2", "--store", "memory://"], 2, "a single process"),
        (["--tls-key", "key.pem"], 2, "need each other"),
    ],
)
def test_a_wrong_option_is_refused(tvix_store: Program, arguments: list[str], code: int, message: str) -> None:
    ended = tvix_store.run("daemon", *arguments)
    assert ended.code == code
    assert message in ended.error


def test_a_store_that_cannot_be_opened_ends_the_daemon_as_it_ends_any_command(tvix_store: Program, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    ended = tvix_store.run("daemon", "-l", "localhost:0", "--store", tmp_path / "file")
    assert ended == tvix_store.run("list", "--store", tmp_path / "file")
    assert ended.code == 3
    assert str(tmp_path / "file") in ended.error


def test_workers_that_a_damaged_index_kills_are_started_anew_when_it_is_mended(tvix_store: Program) -> None:
    path = tvix_store("import", __file__)
    with tvix_store.start("daemon", "-l", "localhost:0", "--workers", "2") as running:
        assert running.stderr is not None
        assert running.stderr.readline().startswith(b"READY ")
        # As a worker leaves it that dies of a fault in the index.
        note = 'Fatal Python error: Bus error\n\n  File "/x/backends/local/index.py", line 1 in f\n'
        (tvix_store.store / "lock").write_text(note)
        children = Path(f"/proc/{running.pid}/task/{running.pid}/children")
        before = children.read_text().split()
        os.kill(int(before[0]), signal.SIGBUS)
        log = b""
        while b"from its packs" not in log:  # the replacement has found that it is not alone, so the other worker ended as well
            line = running.stderr.readline()
            assert line, log
            log += line
        assert b"all workers are started anew" in log
        while len(now := children.read_text().split()) < 2:
            time.sleep(0.05)
        assert not {*before} & {*now}
        assert tvix_store("list") == path
        running.terminate()
        assert running.wait(10) == 0
