"""UnfinishedFile: a file that gets its name when it is complete, and on the disk."""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tvix_store.durable_file import sync_directory


class UnfinishedFile:
    """A new file in `directory`, which is made where there is none. All methods block.

    The process that writes it holds its lock. So others tell it from one that a killed process has left: see `tidy`.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._path: Path | None = None
        self._fd: int | None = None

    def open(self) -> None:
        """Make the file."""
        while self._fd is None:
            path = self._directory / secrets.token_hex(8)
            try:
                fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
            except FileNotFoundError:
                with suppress(FileExistsError):
                    self._directory.mkdir()
                continue
            _lock(fd, fcntl.LOCK_EX)
            if os.fstat(fd).st_nlink:
                self._path, self._fd = path, fd
            else:  # somebody was faster with the lock, and has removed the file
                os.close(fd)

    def write(self, data: bytes) -> None:
        """Append to the file."""
        assert self._fd is not None
        left = memoryview(data)
        while left:
            left = left[os.write(self._fd, left) :]

    def move_to(self, target: Path) -> None:
        """Give the file its name, in place of another file. It is durable then."""
        self._sync()
        assert self._path is not None
        self._path.rename(target)
        sync_directory(target.parent)

    def link_to(self, target: Path) -> bool:
        """As `move_to`, but False if there is something of this name."""
        self._sync()
        assert self._path is not None
        try:
            os.link(self._path, target, follow_symlinks=False)
        except FileExistsError:
            return False
        except OSError:  # a file system without hard links: two writers of one name may then overwrite each other
            if os.path.lexists(target):
                return False
            self._path.rename(target)
        sync_directory(target.parent)
        return True

    def discard(self) -> None:
        """Remove what has no name yet."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)
            self._path = None
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _sync(self) -> None:
        assert self._fd is not None
        os.fsync(self._fd)


@contextmanager
def unfinished_file(directory: Path) -> Iterator[UnfinishedFile]:
    """An open one, which is discarded at the end. Blocks."""
    file = UnfinishedFile(directory)
    try:
        file.open()
        yield file
    finally:
        file.discard()


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold the lock of a directory, as far as its file system has locks. Blocks."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _lock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def tidy(directory: Path) -> None:
    """Remove the unfinished files that killed processes have left, and the directory if it is empty then. Blocks."""
    with suppress(OSError):
        for entry in os.scandir(directory):
            with suppress(OSError):
                fd = os.open(entry.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    os.unlink(entry.path)
                finally:
                    os.close(fd)
        os.rmdir(directory)


def _lock(fd: int, operation: int) -> None:
    with suppress(OSError):  # a file system without locks
        fcntl.flock(fd, operation)
