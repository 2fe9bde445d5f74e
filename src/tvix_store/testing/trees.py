"""Trees of files for tests: small enough to be values, and what they are as nodes, as a NAR and in a file system."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from tvix_store.model.digest import Digest
from tvix_store.model.directory import Directory, SizeRule
from tvix_store.model.nodes import FileNode, Node, SymlinkNode
from tvix_store.nar import (
    DirectoryEnd,
    DirectoryStart,
    EntryEnd,
    EntryStart,
    Event,
    FileData,
    FileEnd,
    FileStart,
    NarWriter,
    Symlink,
)


@dataclass(frozen=True, slots=True)
class TreeFile:
    """A regular file of a tree."""

    contents: bytes
    executable: bool = False


Tree: TypeAlias = "TreeFile | SymlinkNode | Mapping[bytes, Tree]"
"""A file, a symlink, or a directory: its children by name, in any order."""


@dataclass(frozen=True, slots=True)
class CastoreTree:
    """What a store holds of a tree: its root node, its directories from leaves to root, each once, and its blobs."""

    root: Node
    directories: tuple[Directory, ...]
    blobs: Mapping[Digest, bytes]


def castore(tree: Tree, rule: SizeRule = SizeRule.DOCUMENTED) -> CastoreTree:
    """The nodes of `tree`, with directory sizes by `rule`."""
    directories: dict[Digest, Directory] = {}
    blobs: dict[Digest, bytes] = {}

    def node(tree: Tree) -> Node:
        match tree:
            case TreeFile(contents, executable):
                digest = Digest.of(contents)
                blobs[digest] = contents
                return FileNode(digest, len(contents), executable)
            case SymlinkNode():
                return tree
            case _:
                directory = Directory({name: node(child) for name, child in tree.items()})
                directories.setdefault(directory.digest, directory)
                return directory.node(rule)

    root = node(tree)
    return CastoreTree(root, tuple(directories.values()), blobs)


def events(tree: Tree) -> Iterator[Event]:
    """The events of the tree's NAR."""
    match tree:
        case TreeFile(contents, executable):
            yield FileStart(len(contents), executable)
            if contents:
                yield FileData(contents)
            yield FileEnd()
        case SymlinkNode(target):
            yield Symlink(target)
        case _:
            yield DirectoryStart()
            for name in sorted(tree):
                yield EntryStart(name)
                yield from events(tree[name])
                yield EntryEnd()
            yield DirectoryEnd()


def nar(tree: Tree) -> bytes:
    """The tree's NAR."""
    writer = NarWriter()
    data = b"".join(map(writer.send, events(tree)))
    writer.finish()
    return data


def read(path: Path) -> Tree:
    """The tree at `path` in the file system."""
    if path.is_symlink():
        return SymlinkNode(os.fsencode(os.readlink(path)))
    if path.is_dir():
        return {os.fsencode(child.name): read(child) for child in path.iterdir()}
    return TreeFile(path.read_bytes(), bool(path.stat().st_mode & 0o100))


def write(tree: Tree, path: Path) -> None:
    """Make the tree at `path`, where nothing is yet."""
    match tree:
        case TreeFile(contents, executable):
            path.write_bytes(contents)
            path.chmod(0o755 if executable else 0o644)
        case SymlinkNode(target):
            path.symlink_to(os.fsdecode(target))
        case _:
            path.mkdir()
            for name, child in tree.items():
                write(child, path / os.fsdecode(name))
