"""UnfinishedTree: the shape of a tree whose files were numbered, before the digests of their contents are known."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from tvix_store.model.digest import Digest
from tvix_store.model.directory import Directory, SizeRule
from tvix_store.model.nodes import DirectoryNode, FileNode, Node, SymlinkNode


@dataclass(slots=True)
class UnfinishedFile:
    """File number `number` of the tree."""

    number: int
    size: int
    executable: bool


@dataclass(slots=True)
class UnfinishedDirectory:
    """A directory's children by name, sorted; `node` is set when it is finished."""

    entries: dict[bytes, Unfinished] = field(default_factory=dict)
    node: DirectoryNode | None = None


Unfinished = UnfinishedFile | UnfinishedDirectory | SymlinkNode


class UnfinishedTree:
    """A tree that is being read. Directories are added when they are complete, children first."""

    def __init__(self) -> None:
        self.root: Unfinished | None = None
        self.directories: list[UnfinishedDirectory] = []

    @property
    def is_directory(self) -> bool:
        return isinstance(self.root, UnfinishedDirectory)

    def finished(self, digests: list[Digest], rule: SizeRule) -> Iterator[Directory]:
        """The directories from the leaves to the root, when the digests of all files are known by their number."""
        for unfinished in self.directories:
            directory = Directory({name: _node(child, digests) for name, child in unfinished.entries.items()})
            unfinished.node = directory.node(rule)
            yield directory

    def root_node(self, digests: list[Digest]) -> Node:
        """The root node, when all directories are finished."""
        assert self.root is not None
        return _node(self.root, digests)


def _node(child: Unfinished, digests: list[Digest]) -> Node:
    match child:
        case UnfinishedFile(number, size, executable):
            return FileNode(digests[number], size, executable)
        case UnfinishedDirectory(node=node):
            assert node is not None
            return node
        case symlink:
            return symlink
