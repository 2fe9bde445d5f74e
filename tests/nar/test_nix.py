"""Our archives and those of the real Nix."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from tests import programs, vectors
from tvix_store.model.nodes import SymlinkNode
from tvix_store.nar import NarReader, NarWriter
from tvix_store.testing import strategies, trees
from tvix_store.testing.trees import Tree, TreeFile

PIECE = 100_003


@pytest.fixture(scope="session")
def nix_store() -> str:
    return programs.require("nix-store")


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real tree: Python's standard library, with some symlinks and modes."""
    copy = tmp_path_factory.mktemp("real") / "library"
    source = Path(os.__file__).parent
    shutil.copytree(source, copy, symlinks=True, ignore=shutil.ignore_patterns("__pycache__", "site-packages", "test", "*.so"))
    (copy / "link").symlink_to("../elsewhere")
    (copy / "os.py").chmod(0o755)
    return copy


def dump(nix_store: str, path: Path) -> bytes:
    return subprocess.run([nix_store, "--dump", path], stdout=subprocess.PIPE, check=True).stdout


def restore(nix_store: str, nar: bytes, path: Path) -> None:
    subprocess.run([nix_store, "--restore", path], input=nar, check=True)


def read_and_write(nar: bytes) -> bytes:
    reader, writer = NarReader(), NarWriter()
    pieces = (nar[at : at + PIECE] for at in range(0, len(nar), PIECE))
    written = b"".join(writer.send(event) for piece in pieces for event in reader.feed(piece))
    reader.finish()
    writer.finish()
    return written


def test_a_real_tree_is_written_as_nix_dumps_it(nix_store: str, library: Path) -> None:
    dumped = dump(nix_store, library)
    assert trees.nar(trees.read(library)) == dumped
    assert read_and_write(dumped) == dumped


def test_nix_restores_a_real_tree_from_what_we_write(nix_store: str, library: Path, tmp_path: Path) -> None:
    tree = trees.read(library)
    restore(nix_store, trees.nar(tree), tmp_path / "restored")
    assert trees.read(tmp_path / "restored") == tree


@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(strategies.trees())
def test_any_tree_is_written_as_nix_dumps_it_and_restored_by_nix(nix_store: str, tmp_path: Path, tree: Tree) -> None:
    for name in ("written", "restored"):
        remove(tmp_path / name)
    trees.write(tree, tmp_path / "written")
    nar = trees.nar(tree)
    assert dump(nix_store, tmp_path / "written") == nar
    restore(nix_store, nar, tmp_path / "restored")
    assert trees.read(tmp_path / "restored") == tree


def remove(path: Path) -> None:
    if not path.is_symlink() and path.is_dir():  # in this order: a target may be too long to be followed
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@pytest.mark.parametrize("name", [vector["name"] for vector in vectors.nix()["trees"]], ids=lambda name: name[:30])
def test_nix_reads_the_recorded_trees_from_what_we_write(nix_store: str, tmp_path: Path, name: str) -> None:
    [tree] = [vectors.tree(vector["tree"]) for vector in vectors.nix()["trees"] if vector["name"] == name]
    restore(nix_store, trees.nar(tree), tmp_path / "restored")
    assert trees.read(tmp_path / "restored") == tree


def test_a_large_file_is_written_as_nix_dumps_it(nix_store: str, tmp_path: Path) -> None:
    contents = os.urandom(1 << 20) * 5 + b"odd"
    (tmp_path / "large").write_bytes(contents)
    dumped = dump(nix_store, tmp_path / "large")
    assert trees.nar(TreeFile(contents)) == dumped
    assert read_and_write(dumped) == dumped


def test_nix_reads_a_symlink_as_the_whole_archive(nix_store: str, tmp_path: Path) -> None:
    restore(nix_store, trees.nar(SymlinkNode(b"elsewhere")), tmp_path / "link")
    assert os.readlink(tmp_path / "link") == "elsewhere"
