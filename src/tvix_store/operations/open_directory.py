"""OpenDirectory: a place in a tree on disk."""

from __future__ import annotations

import os
from pathlib import Path

_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class OpenDirectory:
    """A directory that is open as `fd`, and can move down and up the tree that it is in.

    Follows no symlink, and needs one file descriptor and no path, however deep the tree is.
    """

    def __init__(self, path: Path) -> None:
        self.fd = os.open(path, _FLAGS)

    def enter(self, name: bytes) -> None:
        self._move(name)

    def leave(self) -> None:
        self._move(b"..")

    def close(self) -> None:
        os.close(self.fd)

    def _move(self, name: bytes) -> None:
        there = os.open(name, _FLAGS, dir_fd=self.fd)
        os.close(self.fd)
        self.fd = there


def remove_tree(path: Path) -> None:
    """Remove a directory and all below it. Unlike `shutil.rmtree` (until Python 3.13) at any depth."""
    place = OpenDirectory(path)
    try:
        entered: list[bytes] = []
        left = [_remove_files(place)]
        while left[-1] or entered:
            if left[-1]:
                entered.append(left[-1].pop())
                place.enter(entered[-1])
                left.append(_remove_files(place))
            else:
                left.pop()
                place.leave()
                os.rmdir(entered.pop(), dir_fd=place.fd)
    finally:
        place.close()
    path.rmdir()


def _remove_files(place: OpenDirectory) -> list[bytes]:
    """Remove all but directories; their names."""
    directories: list[bytes] = []
    with os.scandir(place.fd) as entries:
        for entry in entries:
            name = os.fsencode(entry.name)
            if entry.is_dir(follow_symlinks=False):
                directories.append(name)
            else:
                os.unlink(name, dir_fd=place.fd)
    return directories
