"""`tvix-store daemon`, as far as the command line goes."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.cli.program import Program


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_daemon_serves_until_it_is_told_to_end(tvix_store: Program, number: signal.Signals) -> None:
    with tvix_store.start("daemon", "-l", "localhost:0", "-l", tvix_store.directory / "socket") as running:
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
