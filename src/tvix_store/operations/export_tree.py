"""A node, or a stream of bytes, put on the disk."""

from __future__ import annotations

import os
from collections.abc import AsyncIterable
from pathlib import Path

from tvix_store.model.nodes import DirectoryNode, FileNode, Node, SymlinkNode
from tvix_store.operations.closure import Closure
from tvix_store.operations.draft import Draft
from tvix_store.operations.fetch_tree import Batch, fetch_tree, read_contents
from tvix_store.operations.open_directory import OpenDirectory
from tvix_store.services.blobs import BlobService
from tvix_store.services.directories import DirectoryService

_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


async def export_tree(blobs: BlobService, directories: DirectoryService, node: Node, target: Path) -> None:
    """Make `target` the directory, file or symlink that `node` is; it appears whole, or not at all.

    Modes are those that `nix-store --restore` gives: files 0666, executable ones and directories 0777, less the umask.

    Raises:
        ConflictError, DeniedError, ExhaustedError, InvalidError: as `Draft`.
        NotFoundError, InvalidError, CorruptError: as `fetch_tree`.
    """
    async with Draft(target) as draft:
        writer = await draft.run(_TreeWriter, draft.path)
        try:
            async for batch in fetch_tree(blobs, Closure(directories, node)):
                await draft.run(writer.write, batch)
                if batch.large:
                    name, file = batch.large
                    await draft.run(writer.begin, name, file.executable)
                    async for piece in read_contents(blobs, file):
                        await draft.run(writer.append, piece)
                    await draft.run(writer.end)
        finally:
            await draft.run(writer.close)


async def save_stream(pieces: AsyncIterable[bytes], target: Path) -> None:
    """Make `target` a file of `pieces` (a NAR, a tar); it appears whole, or not at all.

    Raises:
        ConflictError, DeniedError, ExhaustedError, InvalidError: as `Draft`.
    """
    async with Draft(target) as draft:
        fd = await draft.run(os.open, draft.path, _NEW_FILE, 0o666)
        try:
            async for piece in pieces:
                await draft.run(_write, fd, piece)
        finally:
            await draft.run(os.close, fd)


class _TreeWriter:
    """Writes what a walk comes to. A few calls of the system a file, with names relative to the directory that is open."""

    def __init__(self, root: Path) -> None:
        self._root = os.fsencode(root.name)
        self._place = OpenDirectory(root.parent)
        self._file: int | None = None

    def write(self, batch: Batch) -> None:
        contents = iter(batch.contents)
        place = self._place
        for step_name, node in batch.steps:
            name = step_name or self._root
            if type(node) is FileNode:
                self.begin(name, node.executable)
                self.append(next(contents))
                self.end()
            elif type(node) is SymlinkNode:
                os.symlink(node.target, name, dir_fd=place.fd)
            elif type(node) is DirectoryNode:
                os.mkdir(name, 0o777, dir_fd=place.fd)
                place.enter(name)
            else:
                place.leave()

    def begin(self, name: bytes, executable: bool) -> None:
        """Open a file, to which `append` adds until `end`."""
        self._file = os.open(name or self._root, _NEW_FILE, 0o777 if executable else 0o666, dir_fd=self._place.fd)

    def append(self, data: bytes) -> None:
        assert self._file is not None
        _write(self._file, data)

    def end(self) -> None:
        assert self._file is not None
        os.close(self._file)
        self._file = None

    def close(self) -> None:
        if self._file is not None:
            self.end()
        self._place.close()


def _write(fd: int, data: bytes) -> None:
    written = os.write(fd, data)
    while written < len(data):
        written += os.write(fd, memoryview(data)[written:])
