"""What stands around the contents of a step in its NAR, for all who go through the steps of a tree: to render, plan or list it."""

from __future__ import annotations

from tvix_store.model.nodes import DirectoryNode, FileNode, Node
from tvix_store.nar import tokens


def around(name: bytes, node: Node | None, depth: int) -> tuple[bytes, bytes, int]:
    """The bytes of a step before the contents of its file, and those behind; and how many directories are entered then.

    `depth` is how many were entered before: with 0 the step is the root's, and the NAR begins. `node` None leaves a directory.
    Where the node is no file, nothing comes between.
    """
    if node is None:
        return (tokens.DIRECTORY_END + tokens.ENTRY_END if depth > 1 else tokens.DIRECTORY_END), b"", depth - 1
    start, end = (tokens.entry_start(name), tokens.ENTRY_END) if depth else (tokens.MAGIC, b"")
    if type(node) is FileNode:
        return start + tokens.file_start(node.size, node.executable), tokens.file_end(node.size) + end, depth
    if type(node) is DirectoryNode:
        return start + tokens.DIRECTORY_START, b"", depth + 1
    return start + tokens.symlink(node.target), end, depth  # type: ignore[union-attr]  # what is left
