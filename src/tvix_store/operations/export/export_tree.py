"""A node, or a stream of bytes, put on the disk."""

from __future__ import annotations

import os
from collections.abc import AsyncIterable, Callable
from pathlib import Path

from tvix_store.model.file_path import StrPath
from tvix_store.model.nodes import DirectoryNode
from tvix_store.model.wanted import wanted_path
from tvix_store.operations.export.atomic_target import AtomicTarget
from tvix_store.operations.export.parallel import export_parallel
from tvix_store.operations.export.tree_writer import NEW_FILE, TreeWriter, write_all
from tvix_store.operations.export.worker_pool import WorkerPool
from tvix_store.operations.trees.walk import fetch_tree, read_contents
from tvix_store.services.blobs import BlobService, wanted_blobs
from tvix_store.services.directories import DirectoryTree, wanted_tree

_WORTH_A_POOL = 200
"""Size of a directory from which others help: they have to open the store first, which takes longer than writing some files."""
Progress = Callable[[int, int], None]
"""Called with how many more files, and bytes of them, were written."""


async def export_tree(
    blobs: BlobService,
    tree: DirectoryTree,
    target: StrPath,
    *,
    pool: WorkerPool | None = None,
    progress: Progress | None = None,
) -> None:
    """Make `target` the directory, file or symlink that the tree's root is; it appears whole, or not at all.

    Modes are those that `nix-store --restore` gives: files 0666, executable ones and directories 0777, less the umask.
    A `pool`, whose workers have the same store open, shares the work.

    Raises:
        ConflictError, DeniedError, ExhaustedError, InvalidError: as `AtomicTarget`.
        NotFoundError, InvalidError, CorruptError: as `fetch_tree`.
        UnavailableError: as `WorkerPool.run`.
    """
    wanted_blobs(blobs)
    wanted_tree(tree)
    count = progress or (lambda files, size: None)
    node = tree.root
    async with AtomicTarget(Path(wanted_path(target))) as atomic:
        writer = await atomic.run(TreeWriter, atomic.path)
        try:
            if pool is not None and pool.size and isinstance(node, DirectoryNode) and node.size >= _WORTH_A_POOL:
                await export_parallel(pool, tree, atomic, writer, count)
            else:
                await _export(blobs, tree, atomic, writer, count)
        finally:
            await atomic.run(writer.close)


async def _export(blobs: BlobService, tree: DirectoryTree, atomic: AtomicTarget, writer: TreeWriter, count: Progress) -> None:
    async for batch in fetch_tree(blobs, tree):
        await atomic.run(writer.write, batch.steps, batch.contents)
        count(len(batch.contents), sum(map(len, batch.contents)))
        if batch.large:
            name, file = batch.large
            await atomic.run(writer.begin, name, file.executable)
            async for piece in read_contents(blobs, file):
                await atomic.run(writer.append, piece)
                count(0, len(piece))
            await atomic.run(writer.end)
            count(1, 0)


async def save_stream(pieces: AsyncIterable[bytes], target: Path) -> None:
    """Make `target` a file of `pieces` (a NAR, a tar); it appears whole, or not at all.

    Raises:
        ConflictError, DeniedError, ExhaustedError, InvalidError: as `AtomicTarget`.
    """
    async with AtomicTarget(target) as atomic:
        fd = await atomic.run(os.open, atomic.path, NEW_FILE, 0o666)
        try:
            async for piece in pieces:
                await atomic.run(write_all, fd, piece)
        finally:
            await atomic.run(os.close, fd)
