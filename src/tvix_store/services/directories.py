"""DirectoryService: directories by the BLAKE3 digest of their canonical encoding."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator
from typing import Protocol

from tvix_store.model.digest import Digest
from tvix_store.model.directory import Directory
from tvix_store.model.nodes import Node
from tvix_store.model.wanted import wanted_with

_PARSED_HERE = 256 << 10
"""Bytes of an encoded directory that are parsed on the event loop: some 20 ms."""


class DirectoryTree(Protocol):
    """A handle of one tree: a node, and a reader of the directories that the node reaches.

    All reading below a known root goes through its handle. A backend may find directories by the roots of trees only.
    """

    @property
    def root(self) -> Node: ...

    def expect_all(self) -> None:
        """Announce that most directories will be read. A backend may then read ahead."""
        ...

    async def get(self, digest: Digest) -> Directory:
        """The root, or a directory that it reaches.

        Raises:
            NotFoundError: the directory is not there. If the caller expects all: or another one below the root.
            CorruptError: as `DirectoryService.get`.
        """
        ...

    def below(self, node: Node) -> DirectoryTree:
        """The part of the tree below `node`, which the root reaches."""
        ...


class DirectoryService(Protocol):
    """Stores directories, whole graphs at a time."""

    async def get(self, digest: Digest) -> Directory | None:
        """One directory, or None if it is not there.

        Raises:
            CorruptError: the stored bytes do not match `digest`.
        """
        ...

    def get_recursive(self, digest: Digest) -> AsyncIterator[Directory]:
        """The directory and all below it: the root first, each after one that refers to it, each distinct one once.

        Raises:
            NotFoundError: the root, or one below it, is not there.
            CorruptError: as `get`.
        """
        ...

    def tree(self, root: Node) -> DirectoryTree:
        """The tree of a root node, such as that of a path info. Nothing is read yet."""
        ...

    async def put(self, directories: AsyncIterable[Directory]) -> Digest:
        """Store a graph sent from its leaves to its root, and return the root's digest.

        A refused graph leaves nothing visible.

        Raises:
            InvalidError: the stream breaks a rule of `LeavesToRoot`.
            ExhaustedError: the disk, or a limit, is full.
        """
        ...


async def read_directory(tree: DirectoryTree, digest: Digest) -> Directory:
    """As `DirectoryTree.get`, parsed."""
    directory = await tree.get(digest)
    await parse(directory)
    return directory


async def parse(directory: Directory) -> None:
    """Parse a directory before its entries are used. A large one is parsed in a thread, so that the event loop stays free."""
    if not directory.is_parsed and len(directory.encoded) > _PARSED_HERE:
        await asyncio.to_thread(directory.parse)


def wanted_tree(tree: object) -> None:
    """Check that an argument is the handle of a tree.

    Raises:
        InvalidError: it is something else.
    """
    wanted_with(tree, ("root", "below"), "the handle of a tree: `Resolved.tree`, or `store.directories.tree(node)`")
