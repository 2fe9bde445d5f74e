"""Golden vectors: what other implementations say (`nix.json` is recorded by tools/record_nix_vectors.py)."""

from __future__ import annotations

import base64
import json
from functools import cache
from pathlib import Path
from typing import Any

from tvix_store.model.nodes import SymlinkNode
from tvix_store.testing.trees import Tree, TreeFile


@cache
def castore() -> list[dict[str, Any]]:
    """Trees with their digests by the snix size rule, store paths and NAR hashes."""
    vectors: list[dict[str, Any]] = _load("castore.json")["vectors"]
    return vectors


@cache
def nix() -> dict[str, Any]:
    """Hashes, trees, store paths, names and signatures of the real Nix."""
    return _load("nix.json")


def tree(vector: dict[str, Any]) -> Tree:
    """The tree that a vector describes."""
    if "directory" in vector:
        return {base64.b64decode(name): tree(child) for name, child in vector["directory"].items()}
    if "symlink" in vector:
        return SymlinkNode(base64.b64decode(vector["symlink"]))
    if "repeat" in vector:
        return TreeFile(base64.b64decode(vector["repeat"]) * vector["times"], vector["executable"])
    return TreeFile(base64.b64decode(vector["file"]), vector["executable"])


def _load(name: str) -> dict[str, Any]:
    vectors: dict[str, Any] = json.loads((Path(__file__).parent / name).read_text())
    return vectors
