"""CacheFiles: the files below the directory of a cache, which are read as a stranger's."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from tvix_store.services.upstream import UpstreamDownError, UpstreamFailsError, UpstreamLiesError

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFLNK: "a symlink",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


class CacheFiles:
    """Opens regular files below `directory`. No symlink below it is followed, and no path leads out of it. All methods block."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def open(self, path: str) -> int | None:
        """Open a file to read; its descriptor. None if it is not there.

        Raises:
            UpstreamLiesError: the path leads out of the directory, or to something that is no regular file.
            UpstreamFailsError: the file cannot be opened.
            UpstreamDownError: the directory cannot be opened.
        """
        *folders, name = parts_of(path)
        place = self._open_directory()
        try:
            for folder in folders:
                inner = self._opened(folder, place, path, stat.S_IFDIR)
                if inner is None:
                    return None
                os.close(place)
                place = inner
            return self._opened(name, place, path, stat.S_IFREG)
        finally:
            os.close(place)

    def size(self, path: str) -> int | None:
        """The size of a file in bytes; None, or an error, as `open`."""
        fd = self.open(path)
        if fd is None:
            return None
        try:
            return os.fstat(fd).st_size
        finally:
            os.close(fd)

    def read(self, path: str, most: int) -> bytes | None:
        """A file of at most `most` bytes; None if it is not there.

        Raises:
            UpstreamLiesError: it is larger, or as `open`.
            UpstreamDownError: as `open`, or it cannot be read.
        """
        fd = self.open(path)
        if fd is None:
            return None
        try:
            with open(fd, "rb") as file:
                data = file.read(most + 1)
        except OSError as error:
            raise _fails(path, error) from None
        if len(data) > most:
            raise UpstreamLiesError(f"{path} has more than {most} bytes")
        return data

    def names(self) -> list[str]:
        """The names of all that is right in the directory.

        Raises:
            UpstreamDownError: it cannot be read.
        """
        try:
            return os.listdir(self._directory)
        except OSError as error:
            raise self._down(error) from None

    def _open_directory(self) -> int:
        try:
            return os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise self._down(error) from None

    def _opened(self, name: str, place: int, path: str, kind: int) -> int | None:
        try:
            # Looked at first: to open a device or a FIFO may do something. The second look is at what was opened.
            check_kind(os.stat(name, dir_fd=place, follow_symlinks=False), path, kind)
            fd = os.open(name, _READ | (os.O_DIRECTORY if kind == stat.S_IFDIR else os.O_NONBLOCK), dir_fd=place)
            try:
                check_kind(os.fstat(fd), path, kind)
            except UpstreamLiesError:
                os.close(fd)
                raise
            return fd
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _fails(path, error) from None

    def _down(self, error: OSError) -> UpstreamDownError:
        return UpstreamDownError(f"the binary cache in {self._directory} cannot be read: {error.strerror}")


def parts_of(path: str) -> list[str]:
    """The parts of a path that leads to a place below the directory.

    Raises:
        UpstreamLiesError: it may lead elsewhere.
    """
    parts = path.split("/")
    if "\0" in path or any(part in ("", ".", "..") for part in parts):
        raise UpstreamLiesError(f"{path[:100]!r} is not the name of a file in the cache")
    return parts


def check_kind(status: os.stat_result, path: str, kind: int) -> None:
    """Raise UpstreamLiesError where something at `path` is not of this kind."""
    found = stat.S_IFMT(status.st_mode)
    if found != kind:
        what = _KINDS.get(found, "a file")
        raise UpstreamLiesError(f"{path[:100]!r} leads to {what}, which is refused")


def _fails(path: str, error: OSError) -> UpstreamDownError | UpstreamLiesError:
    if error.errno in (errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR):
        return UpstreamLiesError(f"{path[:100]!r} is not the name of a file in the cache")
    return UpstreamFailsError(f"{path} cannot be read: {error.strerror}")
