"""The operating system's errors as ours, and the few file operations that must reach the disk."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tvix_store.errors import DeniedError, ExhaustedError, InvalidError, UnavailableError


@contextmanager
def disk_errors(where: Path) -> Iterator[None]:
    """Translate an OSError below `where`.

    Raises:
        ExhaustedError: the disk, or a quota, is full.
        DeniedError: permissions, or a read-only file system.
        InvalidError: the path is not one of a directory.
        UnavailableError: anything else.
    """
    try:
        yield
    except OSError as error:
        raise translated(error, where) from error


def translated(error: OSError, where: Path) -> Exception:
    reason = os.strerror(error.errno) if error.errno else str(error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return ExhaustedError(f"cannot write to {where}: {reason}; free some space and try again")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return DeniedError(f"cannot use {error.filename or where}: {reason}")
    if error.errno in (errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP):
        return InvalidError(f"{error.filename or where} cannot be a store's directory: {reason}")
    return UnavailableError(f"cannot use {error.filename or where}: {reason}")


def sync_file(path: Path) -> None:
    """Bring a file, or the names in a directory, to the disk itself."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def unfinished_name(path: Path) -> Path:
    """A name beside `path` that nobody else uses, also where process ids are not unique: containers share file systems."""
    return path.with_name(f"{path.name}.{os.urandom(6).hex()}.new")


def write_file(path: Path, data: bytes) -> None:
    """Create or replace a small file so that, after a power cut, it has either its old or its new content."""
    unfinished = unfinished_name(path)
    fd = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    try:
        os.write(fd, data)
        os.fsync(fd)
    finally:
        os.close(fd)
    os.rename(unfinished, path)
    sync_file(path.parent)
