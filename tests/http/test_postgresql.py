"""A daemon whose path infos and directories are in PostgreSQL, and Nix before it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.cli.program import run_in_process
from tests.http.daemon import Daemon
from tests.http.nix import Nix
from tests.postgresql import new_schema, server
from tvix_store.testing import trees
from tvix_store.testing.trees import TreeFile


def test_nix_pushes_through_a_database_and_fetches_from_another_daemon(
    start_daemon: Callable[..., Daemon], nix: Nix, other_nix: Callable[..., Nix], tmp_path: Path
) -> None:
    address = server().url(new_schema())
    options = ("--store", address, "--blob-service-addr", f"local://{tmp_path}/blobs")
    one, other = (start_daemon(*options, name=name) for name in ("one", "other"))
    trees.write({b"file": TreeFile(b"text"), b"bin": {b"run": TreeFile(b"#!/bin/sh\n", executable=True)}}, tmp_path / "tree")
    path = nix.add(tmp_path / "tree")
    nix.copy_to(one.url, path)
    fetching = other_nix()
    fetching("nix", "copy", "--from", other.url, path)
    assert (fetching.real(path) / "file").read_bytes() == b"text"
    environment = {"HOME": str(tmp_path), "TVIX_STORE": address, "BLOB_SERVICE_ADDR": f"local://{tmp_path}/blobs"}

    def run(*arguments: str) -> str:
        ended = run_in_process(*arguments, directory=tmp_path, environment=environment)
        assert ended.code == 0, ended.error
        return ended.output.decode()

    assert run("list").split() == [path]
    [imported] = run("import", "--name", "imported", "tree").split()
    assert run("cat", f"{imported}/file") == "text"
    assert "Store paths:              2" in run("stats")
    assert nix.path_info(imported, store=one.url)
    run("pin", "add", "keep", path)
    assert "keep" in run("pin", "list")
    assert run("delete", imported).split() == [imported]
    assert run("list").split() == [path]
