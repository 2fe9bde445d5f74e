"""`tvix-store export`, held against the tree that was imported, and against `nix-store` and `tar`."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests import programs
from tests.cli.program import Program


@pytest.fixture
def path(tvix_store: Program, tree: Path) -> str:
    return tvix_store("import", tree)


def assert_same(one: Path, other: Path) -> None:
    compared = subprocess.run(["diff", "--recursive", "--no-dereference", one, other], capture_output=True, text=True, check=False)
    assert compared.stdout + compared.stderr == ""


def test_a_tree_comes_out_as_it_went_in(tvix_store: Program, tree: Path, path: str) -> None:
    tvix_store("export", path, "out")
    assert_same(tree, tvix_store.directory / "out")
    assert (tvix_store.directory / "out/bin/hello").stat().st_mode & 0o111
    assert not (tvix_store.directory / "out/text").stat().st_mode & 0o111


def test_a_nar_is_that_of_nix_and_nix_restores_it(tvix_store: Program, tree: Path, path: str) -> None:
    nix_store = programs.require("nix-store")
    tvix_store("export", "--format", "nar", path, "out.nar")
    nar = (tvix_store.directory / "out.nar").read_bytes()
    assert nar == subprocess.run([nix_store, "--dump", tree], check=True, capture_output=True).stdout
    assert tvix_store.run("export", "--format", "nar", path, "-").output == nar
    subprocess.run([nix_store, "--restore", tvix_store.directory / "restored"], input=nar, check=True)
    assert_same(tree, tvix_store.directory / "restored")


def test_tar_unpacks_a_tar(tvix_store: Program, tree: Path, path: str) -> None:
    tar = tvix_store.run("export", "--format", "tar", path, "-").output
    subprocess.run(["tar", "--extract"], cwd=tvix_store.directory, input=tar, check=True, capture_output=True)
    assert_same(tree, tvix_store.directory / path.rpartition("/")[2])


@pytest.mark.parametrize("inside", ["bin", "text", "bin/sh", "void", "empty"])
def test_what_is_inside_a_store_path_can_be_exported_alone(tvix_store: Program, tree: Path, path: str, inside: str) -> None:
    tvix_store("export", f"{path}/{inside}", "out")
    out = tvix_store.directory / "out"
    if out.is_symlink():
        assert out.readlink() == (tree / inside).readlink()
    else:
        assert_same(tree / inside, out)


def test_a_digest_can_be_exported(tvix_store: Program, tree: Path, path: str) -> None:
    tvix_store("export", json.loads(tvix_store("info", "--json", path))["root"]["digest"], "out")
    assert_same(tree, tvix_store.directory / "out")


@pytest.mark.parametrize("form", ["dir", "nar", "tar"])
def test_what_exists_is_not_overwritten(tvix_store: Program, path: str, form: str) -> None:
    (tvix_store.directory / "out").write_text("mine")
    ended = tvix_store.run("export", "--format", form, path, "out")
    assert (ended.code, ended.error) == (5, "tvix-store: error: out exists; it is not overwritten\n")
    assert (tvix_store.directory / "out").read_text() == "mine"


def test_a_directory_does_not_fit_through_a_pipe(tvix_store: Program, path: str) -> None:
    ended = tvix_store.run("export", path, "-")
    assert ended.code == 2
    assert "--format nar" in ended.error


def test_damaged_content_leaves_nothing_behind(tvix_store: Program, path: str) -> None:
    pack = max((tvix_store.store / "packs").iterdir(), key=lambda each: each.stat().st_size)  # that of the content
    contents = bytearray(pack.read_bytes())
    contents[len(contents) // 2] ^= 1
    pack.write_bytes(contents)
    ended = tvix_store.run("export", path, "out")
    assert ended.code == 6
    assert {each.name for each in tvix_store.directory.iterdir()} == {"store", "tree"}
