"""`tvix-store daemon`, as far as the command line goes."""

from __future__ import annotations

import os
import signal
import subprocess
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
        (["--scrub-days", "1", "--store", "memory://"], 2, "--scrub-days is for a store in a directory"),
        (["--scrub-days", "-1"], 2, "--scrub-days"),
        (["--tls-key", "key.pem"], 2, "need each other"),
        (["--tls-client-auth", "required"], 2, "needs --tls-client-ca"),
        (["--cache", "a signing-key-file=credential:key"], 2, "LoadCredential=key"),
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


def test_one_file_configures_the_daemon_and_its_clients(tvix_store: Program, tree: Path) -> None:
    socket, file = tvix_store.directory / "socket", tvix_store.directory / "config.toml"
    (tvix_store.directory / "cache-key").write_text(tvix_store("key", "generate", "cache-1"))
    (tvix_store.directory / "cache-key").chmod(0o600)
    file.write_text(
        f'store = "grpc+unix://{socket}?wait-connect=1"\n'
        f'[daemon]\nstore = "{tvix_store.store}"\nlisten-address = ["{socket}"]\nworkers = 1\n'
        'signing-key-file = ["credential:cache-key"]\nread-only = true\n'
    )
    path = tvix_store("import", tree)
    del tvix_store.environment["TVIX_STORE"]
    tvix_store.environment |= {"TVIX_STORE_CONFIG": str(file), "CREDENTIALS_DIRECTORY": str(tvix_store.directory)}
    with tvix_store.start("daemon") as running:
        assert tvix_store("list") == path
        refused = tvix_store.run("import", __file__)
        assert (refused.code, "is read-only" in refused.error) == (8, True), refused.error
        narinfo = f"http://localhost/{Path(path).name[:32]}.narinfo"
        done = subprocess.run(["curl", "-sS", "--unix-socket", socket, narinfo], capture_output=True, text=True, check=True)
        assert "\nSig: cache-1:" in done.stdout
        running.terminate()
        assert running.wait(10) == 0
