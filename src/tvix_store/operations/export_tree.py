"""A node, or a stream of bytes, put on the disk."""

from __future__ import annotations

import os
from collections.abc import AsyncIterable, Callable
from pathlib import Path

from tvix_store.model.nodes import DirectoryNode, Node
from tvix_store.operations.closure import Closure
from tvix_store.operations.crew import Crew
from tvix_store.operations.draft import Draft
from tvix_store.operations.export_shares import export_shares
from tvix_store.operations.fetch_tree import fetch_tree, read_contents
from tvix_store.operations.tree_writer import NEW_FILE, TreeWriter, write_all
from tvix_store.services.blobs import BlobService
from tvix_store.services.directories import DirectoryService

_WORTH_A_CREW = 200
"""Size of a directory from which others help: they have to open the store first, which takes longer than writing some files."""
Progress = Callable[[int, int], None]
"""Called with how many more files, and bytes of them, were written."""


async def export_tree(
    blobs: BlobService,
    directories: DirectoryService,
    node: Node,
    target: Path,
    *,
    crew: Crew | None = None,
    progress: Progress | None = None,
) -> None:
    """Make `target` the directory, file or symlink that `node` is; it appears whole, or not at all.

    Modes are those that `nix-store --restore` gives: files 0666, executable ones and directories 0777, less the umask.
    A `crew`, whose members have the same store open, shares the work.

    Raises:
        ConflictError, DeniedError, ExhaustedError, InvalidError: as `Draft`.
        NotFoundError, InvalidError, CorruptError: as `fetch_tree`.
        UnavailableError: as `Crew.run`.
    """
    count = progress or (lambda files, size: None)
    closure = Closure(directories, node)
    async with Draft(target) as draft:
        writer = await draft.run(TreeWriter, draft.path)
        try:
            if crew is not None and crew.size and isinstance(node, DirectoryNode) and node.size >= _WORTH_A_CREW:
                await export_shares(crew, closure, draft, writer, count)
            else:
                await _export(blobs, closure, draft, writer, count)
        finally:
            await draft.run(writer.close)


async def _export(blobs: BlobService, closure: Closure, draft: Draft, writer: TreeWriter, count: Progress) -> None:
    async for batch in fetch_tree(blobs, closure):
        await draft.run(writer.write, batch.steps, batch.contents)
        count(len(batch.contents), sum(map(len, batch.contents)))
        if batch.large:
            name, file = batch.large
            await draft.run(writer.begin, name, file.executable)
            async for piece in read_contents(blobs, file):
                await draft.run(writer.append, piece)
                count(0, len(piece))
            await draft.run(writer.end)
            count(1, 0)


async def save_stream(pieces: AsyncIterable[bytes], target: Path) -> None:
    """Make `target` a file of `pieces` (a NAR, a tar); it appears whole, or not at all.

    Raises:
        ConflictError, DeniedError, ExhaustedError, InvalidError: as `Draft`.
    """
    async with Draft(target) as draft:
        fd = await draft.run(os.open, draft.path, NEW_FILE, 0o666)
        try:
            async for piece in pieces:
                await draft.run(write_all, fd, piece)
        finally:
            await draft.run(os.close, fd)
