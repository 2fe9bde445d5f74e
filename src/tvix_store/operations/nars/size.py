"""The size of a node's NAR, from its directories alone."""

from __future__ import annotations

from collections.abc import MutableMapping
from dataclasses import dataclass
from typing import NamedTuple

from tvix_store.concurrency.cooperative import Yielder, cooperatively
from tvix_store.errors import ExhaustedError
from tvix_store.model.digest import Digest
from tvix_store.model.nodes import DirectoryNode, FileNode, SymlinkNode
from tvix_store.nar import tokens
from tvix_store.services.directories import DirectoryTree, read_directory

# What a NAR takes to calculate is bounded: 41 tiny directories, each with two references to the next, have a NAR of 2**41 entries.
MAX_SIZE = 1 << 40
"""Bytes of the largest NAR that is calculated: about an hour's work, after which clients give up (docs/design/grpc-client.md)."""
MAX_ENTRIES = 50_000_000
"""Entries of directories in it, however small: a Go toolchain has 17,000. 40,000 files, or 400,000 directories, take a second."""


class Extent(NamedTuple):
    """How much of a NAR a directory takes: bytes, without what its parent says of it, and entries at all depths."""

    size: int
    entries: int


async def nar_size(tree: DirectoryTree) -> int:
    """Bytes of the NAR of the tree's root, if files are as large as their nodes state. Each distinct directory is read once.

    Raises:
        NotFoundError: as `DirectoryTree.get`.
        ExhaustedError: the NAR is larger than MAX_SIZE, or has more than MAX_ENTRIES entries.
    """
    root = tree.root
    size = (await measure(tree, root.digest, {})).size if isinstance(root, DirectoryNode) else leaf_size(root)
    size += len(tokens.MAGIC)
    if size > MAX_SIZE:
        raise ExhaustedError(f"the NAR has {size} bytes; at most {MAX_SIZE} are calculated")
    return size


@dataclass(slots=True)
class _Count:
    """A directory on the way from the root, with what is counted of it; `uncounted` are its child directories that are left."""

    digest: Digest
    size: int
    entries: int
    uncounted: list[Digest]


async def measure(tree: DirectoryTree, root: Digest, known: MutableMapping[Digest, Extent]) -> Extent:
    """How much a directory of the tree takes. Directories in `known` are not read again; others are added to it.

    Raises:
        NotFoundError, ExhaustedError: as `nar_size`.
    """
    if root in known:
        return known[root]
    tree.expect_all()
    # A stack of our own: trees may be nested deeper than Python recurses.
    counts = [await _begun(tree, root)]
    yielder = Yielder()
    while counts:
        await yielder.step()
        count = counts[-1]
        while count.uncounted:
            child = known.get(count.uncounted[-1])
            if child is None:
                counts.append(await _begun(tree, count.uncounted[-1]))
                break
            count.uncounted.pop()
            count.size += child.size
            count.entries += child.entries
        else:
            counts.pop()
            if count.size > MAX_SIZE or count.entries > MAX_ENTRIES:
                raise ExhaustedError(
                    f"the NAR of directory {count.digest} has {count.size} bytes and {count.entries} entries; "
                    f"at most {MAX_SIZE} and {MAX_ENTRIES} are calculated"
                )
            known[count.digest] = Extent(count.size, count.entries)
    return known[root]


async def _begun(tree: DirectoryTree, digest: Digest) -> _Count:
    """Everything but the child directories is counted."""
    entries = (await read_directory(tree, digest)).entries
    size = tokens.DIRECTORY_SIZE
    uncounted: list[Digest] = []
    async for name, node in cooperatively(entries.items()):
        size += tokens.entry_size(name)
        if isinstance(node, DirectoryNode):
            uncounted.append(node.digest)
        else:
            size += leaf_size(node)
    return _Count(digest, size, len(entries), uncounted)


def leaf_size(node: FileNode | SymlinkNode) -> int:
    """Bytes that a file or symlink takes."""
    return tokens.file_size(node.size, node.executable) if isinstance(node, FileNode) else tokens.symlink_size(node.target)
