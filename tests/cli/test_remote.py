"""Commands on a daemon's store, over a Unix socket."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.program import Program


@pytest.fixture
def remote(tvix_store: Program, tmp_path: Path) -> Iterator[Program]:
    """The program with a daemon's store as its own. The daemon keeps it in `store`."""
    socket = tmp_path / "socket"
    with tvix_store.start("daemon", "--workers", "1", "--listen-address", socket) as daemon:
        assert daemon.stderr is not None
        assert daemon.stderr.readline().startswith(b"READY unix:")
        client = Program(tmp_path)
        client.environment["TVIX_STORE"] = f"grpc+unix://{socket}"
        yield client
        daemon.terminate()
        assert daemon.wait(30) == 0


def test_a_tree_goes_to_a_daemon_and_comes_back(tvix_store: Program, remote: Program, tree: Path) -> None:
    path = remote("import", tree)
    assert path == remote("list") == tvix_store("list")
    assert remote("ls", "-lR", path) == tvix_store("ls", "-lR", path)
    assert remote("info", path) == tvix_store("info", path)
    assert remote("nar-hash", path) == tvix_store("nar-hash", path)
    assert remote.run("cat", f"{path}/big").output == (tree / "big").read_bytes()
    remote("export", path, "out")
    remote("export", "--format", "nar", path, "remote.nar")
    tvix_store("export", "--format", "nar", path, "local.nar")
    assert (remote.directory / "remote.nar").read_bytes() == (remote.directory / "local.nar").read_bytes()
    assert (remote.directory / "out/text").read_text() == "some text\n"


def test_a_daemon_tells_the_chunks_of_a_blob(tvix_store: Program, remote: Program, tree: Path) -> None:
    path = remote("import", tree)
    for inside in ("big", "text", "empty"):
        assert remote("stat", f"{path}/{inside}") == tvix_store("stat", f"{path}/{inside}")


def test_a_daemon_refuses_false_path_infos(remote: Program, tree: Path) -> None:
    path = remote("import", tree)
    record = json.loads(remote("path-info", "get", path))
    assert remote("path-info", "put", data=json.dumps(record).encode()) == path
    record["narSize"] += 8
    assert remote.run("path-info", "put", data=json.dumps(record).encode()).code == 3


def test_what_a_daemon_refuses_is_said(tvix_store: Program, tmp_path: Path, tree: Path) -> None:
    """All is refused in one batch of small files."""
    tvix_store("list")
    options = ("--read-only", "--workers", "1", "--listen-address", tmp_path / "socket")
    with tvix_store.start("daemon", *options) as daemon:
        remote = ("--store", f"grpc+unix://{tmp_path}/socket?wait-connect=1")
        for path in (tree / "text", tree):
            ended = tvix_store.run("import", path, *remote)
            assert (ended.code, ended.error.count("\n")) == (8, 1)
            assert "this store is read-only" in ended.error
        daemon.terminate()


def test_a_daemon_counts(tvix_store: Program, remote: Program, tree: Path) -> None:
    remote("import", tree)
    counted, remotely = (json.loads(program("stats", "--json")) for program in (tvix_store, remote))
    assert counted["pathInfos"] == 1
    for each in (counted, remotely):
        del each["diskBytes"]  # changes when the daemon rests
    assert counted == remotely


def test_a_daemon_whose_store_cannot_count_says_so(tmp_path: Path) -> None:
    program = Program(tmp_path)
    with program.start("daemon", "--store", "memory://", "--workers", "1", "--listen-address", tmp_path / "socket") as daemon:
        ended = program.run("stats", "--store", f"grpc+unix://{tmp_path}/socket?wait-connect=1")
        assert (ended.code, "cannot count" in ended.error) == (10, True)
        daemon.terminate()


def test_a_daemon_that_is_not_there_is_unavailable(tvix_store: Program) -> None:
    ended = tvix_store.run("list", "--store", "grpc+unix:///nowhere")
    assert ended.code == 7
    assert ended.error.count("\n") == 1
