"""Whole trees: digests, NAR hashes and store paths as the Rust implementation and the real Nix have them."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

import pytest
from hypothesis import given

from tests import vectors
from tests.model import oracle
from tvix_store.model.digest import Digest
from tvix_store.model.directory import SizeRule
from tvix_store.model.nix_hash import NixHash
from tvix_store.model.nodes import DirectoryNode, FileNode, Node, SymlinkNode
from tvix_store.model.store_path import fixed_output_path, flat_output_path
from tvix_store.testing import strategies, trees
from tvix_store.testing.trees import Tree, TreeFile


def by_name(vector: dict[str, Any]) -> str:
    return str(vector["name"])[:30]


@pytest.mark.parametrize("vector", vectors.castore(), ids=by_name)
def test_the_root_node_by_the_snix_rule_is_that_of_snix(vector: dict[str, Any]) -> None:
    root = vector["root"]
    expected: Node
    match root["kind"]:
        case "file":
            digest = Digest.parse(root["digest"])
            expected = FileNode(digest, int(root.get("size", 0)), root.get("executable", False))
        case "symlink":
            expected = SymlinkNode(base64.b64decode(root["target"]))
        case _:
            expected = DirectoryNode(Digest.parse(root["digest"]), int(root.get("size", 0)))
    assert trees.castore(vectors.tree(vector["tree"]), SizeRule.SNIX).root == expected


@pytest.mark.parametrize("vector", vectors.castore(), ids=by_name)
def test_the_root_node_by_the_documented_rule_is_that_of_a_plain_reading_of_the_rule(vector: dict[str, Any]) -> None:
    tree = vectors.tree(vector["tree"])
    assert trees.castore(tree, SizeRule.DOCUMENTED).root == plain_node(tree)[0]


@pytest.mark.parametrize("vector", vectors.castore(), ids=by_name)
def test_the_rules_differ_in_digest_only_where_directories_are_nested(vector: dict[str, Any]) -> None:
    tree = vectors.tree(vector["tree"])
    documented = trees.castore(tree, SizeRule.DOCUMENTED).root
    snix = trees.castore(tree, SizeRule.SNIX).root
    if isinstance(documented, DirectoryNode):
        assert isinstance(snix, DirectoryNode)
        assert isinstance(tree, dict)
        nested = any(isinstance(child, dict) and child for child in tree.values())
        assert (documented.digest != snix.digest) == nested
        assert (documented.size != snix.size) == bool(tree)
    else:
        assert documented == snix


def plain_node(tree: Tree) -> tuple[Node, int]:
    """The root node by the documented rule, made with the protobuf runtime, and the number of descendants, counted one by one."""
    match tree:
        case TreeFile(contents, executable):
            return FileNode(Digest.of(contents), len(contents), executable), 0
        case SymlinkNode():
            return tree, 0
        case _:
            children = {name: plain_node(child) for name, child in tree.items()}
            lists: dict[str, list[object]] = {"DirectoryNode": [], "FileNode": [], "SymlinkNode": []}
            for name in sorted(children):
                message = oracle.node_message(name, children[name][0])
                lists[type(message).__name__].append(message)
            encoding = oracle.encode(
                "Directory", directories=lists["DirectoryNode"], files=lists["FileNode"], symlinks=lists["SymlinkNode"]
            )
            descendants = sum(1 + below for _, below in children.values())
            return DirectoryNode(Digest.of(encoding), descendants), descendants


@given(strategies.trees())
def test_the_documented_size_is_the_number_of_descendants(tree: Tree) -> None:
    assert trees.castore(tree).root == plain_node(tree)[0]


@pytest.mark.parametrize("vector", vectors.castore(), ids=by_name)
def test_nar_and_store_path_of_the_rust_vectors(vector: dict[str, Any]) -> None:
    nar = trees.nar(vectors.tree(vector["tree"]))
    nar_sha256 = hashlib.sha256(nar).digest()
    assert len(nar) == vector["nar_size"]
    assert nar_sha256 == base64.b64decode(vector["nar_sha256"])
    assert fixed_output_path(vector["name"], nar_sha256).absolute() == vector["store_path"]


@pytest.mark.parametrize("vector", vectors.nix()["trees"], ids=by_name)
def test_nar_and_store_path_of_the_nix_vectors(vector: dict[str, Any]) -> None:
    nar = trees.nar(vectors.tree(vector["tree"]))
    nar_sha256 = hashlib.sha256(nar).digest()
    assert len(nar) == vector["nar_size"]
    assert nar_sha256.hex() == vector["nar_sha256"]
    assert fixed_output_path(vector["name"], nar_sha256).absolute() == vector["store_path"]


@pytest.mark.parametrize("vector", vectors.nix()["flat_files"], ids=lambda vector: f"{vector['name']}-{vector['algorithm']}")
def test_store_path_of_a_flat_file_is_that_of_nix(vector: dict[str, str]) -> None:
    contents = hashlib.new(vector["algorithm"], base64.b64decode(vector["file"]))
    path = flat_output_path(vector["name"], NixHash(vector["algorithm"], contents.digest()))
    assert path.absolute() == vector["store_path"]
