"""The NAR of a node, from stored content."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator

from tvix_store.model.nodes import FileNode
from tvix_store.operations.nars.around import around
from tvix_store.operations.trees.walk import Step, fetch_steps, read_contents, walk_tree
from tvix_store.services.blobs import BlobService, wanted_blobs
from tvix_store.services.directories import DirectoryTree, wanted_tree

_PIECE = 256 * 1024
"""Bytes of contents, and
_PARTS: pieces of them and tokens, that are joined to a piece."""
_PARTS = 8192


async def render_nar(blobs: BlobService, tree: DirectoryTree) -> AsyncGenerator[bytes, None]:
    """The bytes of the NAR of the tree's root, in pieces of up to 1.3 MiB; memory is bounded.

    Raises:
        NotFoundError, InvalidError, CorruptError: as `fetch_tree`; what was given out before is no NAR then.
    """
    wanted_blobs(blobs)
    wanted_tree(tree)
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
    parts: list[bytes] = []
    size = 0
    async for batch in fetch_steps(blobs, steps):
        contents = iter(batch.contents)
        for name, child in batch.steps:
            before, behind, depth = around(name, child, depth)
            if type(child) is FileNode:
                parts += before, next(contents), behind
                size += child.size
            else:
                parts += before, behind
                size += len(before)
            if size >= _PIECE or len(parts) >= _PARTS:
                yield b"".join(parts)
                parts, size = [], 0
        if batch.large:
            name, file = batch.large
            before, behind, depth = around(name, file, depth)
            parts.append(before)
            yield b"".join(parts)
            yield file
            parts, size = [behind], 0
    yield b"".join(parts)
