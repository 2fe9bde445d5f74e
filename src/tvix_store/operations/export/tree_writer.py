"""TreeWriter: makes the files, directories and symlinks of a walk on the disk."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from tvix_store.model.nodes import DirectoryNode, FileNode, SymlinkNode
from tvix_store.operations.trees.open_directory import OpenDirectory
from tvix_store.operations.trees.walk import Step

NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class TreeWriter:
    """Writes the tree `root`. A few calls of the system a file, with names relative to the directory that is open."""

    def __init__(self, root: Path) -> None:
        self._root = os.fsencode(root.name)
        self._place = OpenDirectory(root.parent)
        self._file: int | None = None

    def write(self, steps: Iterable[Step], contents: Iterable[bytes]) -> None:
        """Make the nodes of the steps; `contents` are those of the files among them."""
        each = iter(contents)
        for name, node in steps:
            if isinstance(node, FileNode):
                self.begin(name, node.executable)
                self.append(next(each))
                self.end()
            else:
                self._make(name, node)

    def begin(self, name: bytes, executable: bool) -> None:
        """Open a file, to which `append` adds until `end`."""
        self._file = new_file(name or self._root, self._place, executable)

    def append(self, data: bytes) -> None:
        assert self._file is not None
        write_all(self._file, data)

    def end(self) -> None:
        assert self._file is not None
        os.close(self._file)
        self._file = None

    def close(self) -> None:
        if self._file is not None:
            self.end()
        self._place.close()

    def _make(self, step_name: bytes, node: DirectoryNode | SymlinkNode | None) -> None:
        name = step_name or self._root
        if type(node) is SymlinkNode:
            os.symlink(node.target, name, dir_fd=self._place.fd)
        elif type(node) is DirectoryNode:
            os.mkdir(name, 0o777, dir_fd=self._place.fd)
            self._place.enter(name)
        else:
            self._place.leave()


def new_file(name: bytes, place: OpenDirectory, executable: bool) -> int:
    """Make a file in a directory, and open it."""
    return os.open(name, NEW_FILE, 0o777 if executable else 0o666, dir_fd=place.fd)


def write_all(fd: int, data: bytes) -> None:
    written = os.write(fd, data)
    while written < len(data):
        written += os.write(fd, memoryview(data)[written:])
