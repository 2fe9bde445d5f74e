"""The NAR of a node, from stored content."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator

from tvix_store.model.nodes import DirectoryNode, FileNode, Node, SymlinkNode
from tvix_store.nar import tokens
from tvix_store.operations.trees.stored_tree import StoredTree
from tvix_store.operations.trees.walk import Step, fetch_steps, read_contents, walk_tree
from tvix_store.services.blobs import BlobService
from tvix_store.services.directories import DirectoryService

_PIECE = 256 * 1024
"""Bytes of contents, and
_PARTS: pieces of them and tokens, that are joined to a piece."""
_PARTS = 8192


def render_nar(blobs: BlobService, directories: DirectoryService, node: Node) -> AsyncGenerator[bytes, None]:
    """The bytes of the node's NAR, in pieces of up to 1.3 MiB; memory is bounded.

    Raises:
        NotFoundError, InvalidError, CorruptError: as `fetch_tree`; what was given out before is no NAR then.
    """
    return render_tree(blobs, StoredTree(directories, node))


async def render_tree(blobs: BlobService, tree: StoredTree) -> AsyncGenerator[bytes, None]:
    """As `render_nar`, of the tree's root."""
    async for piece in render_steps(blobs, walk_tree(tree)):
        if isinstance(piece, bytes):
            yield piece
            continue
        # Passed on as they come: copying costs half as much as hashing.
        async for data in read_contents(blobs, piece):
            yield data


async def render_steps(blobs: BlobService, steps: AsyncIterator[Step], depth: int = 0) -> AsyncIterator[bytes | FileNode]:
    """What some steps of a tree are in its NAR: bytes, and large files, whose contents stand there.

    `depth` is how many directories were entered before the first step; with 0 it is the root's, and the NAR begins.

    Raises:
        NotFoundError, InvalidError, CorruptError: as `fetch_steps`.
    """
    # Parts that are joined once: contents are copied a single time.
    parts = [b"" if depth else tokens.MAGIC]
    size = 0
    async for batch in fetch_steps(blobs, steps):
        contents = iter(batch.contents)
        for name, child in batch.steps:
            if depth and child is not None:
                parts.append(tokens.entry_start(name))
            if type(child) is DirectoryNode:
                parts.append(tokens.DIRECTORY_START)
                depth += 1
                continue
            if type(child) is FileNode:
                parts += tokens.file_start(child.size, child.executable), next(contents), tokens.file_end(child.size)
                size += child.size
            elif type(child) is SymlinkNode:
                parts.append(tokens.symlink(child.target))
                size += len(child.target)
            else:
                parts.append(tokens.DIRECTORY_END)
                depth -= 1
            if depth:
                parts.append(tokens.ENTRY_END)
            if size >= _PIECE or len(parts) >= _PARTS:
                yield b"".join(parts)
                parts, size = [], 0
        if batch.large:
            name, file = batch.large
            if depth:
                parts.append(tokens.entry_start(name))
            parts.append(tokens.file_start(file.size, file.executable))
            yield b"".join(parts)
            yield file
            parts, size = [tokens.file_end(file.size)], 0
            if depth:
                parts.append(tokens.ENTRY_END)
    yield b"".join(parts)
