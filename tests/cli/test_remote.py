"""Commands on a daemon's store, over a Unix socket."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cli.program import Program


@contextmanager
def daemon(program: Program, socket: Path) -> Iterator[Program]:
    """The program with the store of a daemon as its own, which serves the store of `program` on a socket."""
    with program.start("daemon", "--workers", "1", "--listen-address", socket) as running:
        assert running.stderr is not None
        assert running.stderr.readline().startswith(b"READY unix:")
        client = Program(program.directory)
        client.environment["TVIX_STORE"] = f"grpc+unix://{socket}"
        yield client
        running.terminate()
        assert running.wait(30) == 0


@pytest.fixture
def remote(tvix_store: Program, tmp_path: Path) -> Iterator[Program]:
    """The program with a daemon's store as its own. The daemon keeps it in `store`."""
    with daemon(tvix_store, tmp_path / "socket") as client:
        yield client


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
    tvix_store("import", tree / "text")
    options = ("--read-only", "--workers", "1", "--listen-address", tmp_path / "socket")
    with tvix_store.start("daemon", *options) as running:
        remote = ("--store", f"grpc+unix://{tmp_path}/socket?wait-connect=1")
        for path in (tree / "text", tree):
            ended = tvix_store.run("import", path, *remote)
            assert (ended.code, ended.error.count("\n")) == (8, 1)
            assert "this store is read-only" in ended.error
        running.terminate()


def test_a_daemon_counts(tvix_store: Program, remote: Program, tree: Path) -> None:
    remote("import", tree)
    counted, remotely = (json.loads(program("stats", "--json")) for program in (tvix_store, remote))
    assert counted["pathInfos"] == 1
    for each in (counted, remotely):
        del each["diskBytes"]  # changes when the daemon rests
    assert counted == remotely


def test_a_daemon_whose_store_cannot_count_says_so(tmp_path: Path) -> None:
    program = Program(tmp_path)
    with program.start("daemon", "--store", "memory://", "--workers", "1", "--listen-address", tmp_path / "socket") as running:
        ended = program.run("stats", "--store", f"grpc+unix://{tmp_path}/socket?wait-connect=1")
        assert (ended.code, "cannot count" in ended.error) == (10, True)
        running.terminate()


def test_a_daemon_that_is_not_there_is_unavailable(tvix_store: Program) -> None:
    ended = tvix_store.run("list", "--store", "grpc+unix:///nowhere")
    assert ended.code == 7
    assert ended.error.count("\n") == 1


@pytest.mark.parametrize("front", [False, True])
def test_a_remote_import_counts_directories_as_the_store_behind_the_daemon(tvix_store: Program, tree: Path, front: bool) -> None:
    snix = Program(tvix_store.directory)
    snix.environment["TVIX_STORE"] = f"local://{tvix_store.directory}/snix?size_rule=snix"
    path = snix("import", tree)
    expected = json.loads(snix("path-info", "get", path))["root"]
    assert expected != json.loads(tvix_store("import", "--json", tree))[0]["root"]
    back = Program(tvix_store.directory)
    back.environment["TVIX_STORE"] = f"local://{tvix_store.directory}/back?size_rule=snix"
    with daemon(back, tvix_store.directory / "back.sock") as remote, daemon(remote, tvix_store.directory / "front.sock") as farther:
        asked = farther if front else remote
        assert asked("import", tree) == path
        assert json.loads(asked("path-info", "get", path))["root"] == expected
        assert asked("path-info", "rewrite", "--directory-size-rule", "documented", "--all") == f"{path}: rewritten"
        assert asked("path-info", "rewrite", "--directory-size-rule", "documented", path) == f"{path}: unchanged"
        assert json.loads(asked("path-info", "get", path)) == json.loads(tvix_store("path-info", "get", path))
        assert asked("path-info", "verify", path) == f"{path}: good"


def test_a_client_and_a_front_daemon_learn_the_store_directory_and_take_no_other(tvix_store: Program, tree: Path) -> None:
    path = tvix_store("import", "--store-dir", "/gnu/store", tree)
    assert path.startswith("/gnu/store/")
    with (
        daemon(tvix_store, tvix_store.directory / "back.sock") as remote,
        daemon(remote, tvix_store.directory / "front.sock") as farther,
    ):
        for client in (remote, farther):
            assert client("import", tree) == client("import", "--store-dir", "/gnu/store", tree) == path
            for command in (["import", tree], ["daemon", "-l", "localhost:0", "--workers", "1"]):
                ended = client.run(*command, "--store-dir", "/nix/store")
                assert ended.code == 3
                assert "holds paths of /gnu/store, not of /nix/store" in ended.error
