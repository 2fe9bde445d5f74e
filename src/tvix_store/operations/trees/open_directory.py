"""OpenDirectory: a place in a tree on disk."""

from __future__ import annotations

import errno
import os
from collections import deque
from pathlib import Path
from types import TracebackType
from typing import Self

_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_KEPT_OPEN = 16
"""Directories above the current one: few trees are deeper, and a way back that is open needs no permission and cannot change."""


class OpenDirectory:
    """A directory that is open as `fd`, and can move down and up the tree that it is in.

    Follows no symlink, and needs few file descriptors and no path, however deep the tree is.
    """

    def __init__(self, path: Path) -> None:
        self.fd = os.open(path, _FLAGS)
        self._open_above: deque[int] = deque()
        self._closed_above: list[tuple[int, int]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def enter(self, name: bytes) -> None:
        there = os.open(name, _FLAGS, dir_fd=self.fd)
        self._open_above.append(self.fd)
        self.fd = there
        if len(self._open_above) > _KEPT_OPEN:
            farthest = self._open_above.popleft()
            self._closed_above.append(_identity(farthest))
            os.close(farthest)

    def leave(self) -> None:
        """Go back to where the current directory was entered from.

        Raises:
            OSError: ESTALE where somebody moved the current directory elsewhere.
        """
        there = self._open_above.pop() if self._open_above else self._reopened()
        os.close(self.fd)
        self.fd = there

    def close(self) -> None:
        for fd in (self.fd, *self._open_above):
            os.close(fd)

    def _reopened(self) -> int:
        above = os.open(b"..", _FLAGS, dir_fd=self.fd)
        if _identity(above) != self._closed_above.pop():
            os.close(above)
            raise OSError(errno.ESTALE, "Directory was moved")
        return above


def _identity(fd: int) -> tuple[int, int]:
    status = os.fstat(fd)
    return status.st_dev, status.st_ino


def remove_tree(path: Path) -> None:
    """Remove a directory and all below it. Unlike `shutil.rmtree` (until Python 3.13) at any depth."""
    with OpenDirectory(path) as place:
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
