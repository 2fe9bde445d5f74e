"""The NAR of a node, from stored content."""

from __future__ import annotations

from collections.abc import AsyncIterator

from tvix_store.model.nodes import DirectoryNode, FileNode, Node, SymlinkNode
from tvix_store.nar import tokens
from tvix_store.operations.closure import Closure
from tvix_store.operations.fetch_tree import fetch_tree, read_contents
from tvix_store.services.blobs import BlobService
from tvix_store.services.directories import DirectoryService

_PIECE = 256 * 1024


def render_nar(blobs: BlobService, directories: DirectoryService, node: Node) -> AsyncIterator[bytes]:
    """The bytes of the node's NAR, in pieces of up to 1.3 MiB; memory is bounded.

    Raises:
        NotFoundError, InvalidError, CorruptError: as `fetch_tree`; what was given out before is no NAR then.
    """
    return render_closure(blobs, Closure(directories, node))


async def render_closure(blobs: BlobService, closure: Closure) -> AsyncIterator[bytes]:
    """As `render_nar`, of the closure's root."""
    pending = bytearray(tokens.MAGIC)
    depth = 0
    async for batch in fetch_tree(blobs, closure):
        contents = iter(batch.contents)
        for name, child in batch.steps:
            if depth and child is not None:
                pending += tokens.entry_start(name)
            if type(child) is DirectoryNode:
                pending += tokens.DIRECTORY_START
                depth += 1
                continue
            if type(child) is FileNode:
                pending += tokens.file_start(child.size, child.executable)
                pending += next(contents)
                pending += tokens.file_end(child.size)
            elif type(child) is SymlinkNode:
                pending += tokens.symlink(child.target)
            else:
                pending += tokens.DIRECTORY_END
                depth -= 1
            if depth:
                pending += tokens.ENTRY_END
            if len(pending) >= _PIECE:
                yield bytes(pending)
                pending.clear()
        if batch.large:
            name, file = batch.large
            if depth:
                pending += tokens.entry_start(name)
            pending += tokens.file_start(file.size, file.executable)
            # Passed on as they come: copying costs half as much as hashing.
            yield bytes(pending)
            pending.clear()
            async for piece in read_contents(blobs, file):
                yield piece
            pending += tokens.file_end(file.size)
            if depth:
                pending += tokens.ENTRY_END
    yield bytes(pending)
