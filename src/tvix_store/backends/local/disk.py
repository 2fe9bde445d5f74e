"""The operating system's errors as ours, and the making of files: the only place of the local store that creates any.

Several users may work on one store, such as a service's user and root. So each file gets the owner, the group and the mode of its
directory. The directories get them from the store's directory. The umask plays no part.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tvix_store.errors import DiskDeniedError, DiskFullError, InvalidError, UnavailableError


@contextmanager
def disk_errors(where: Path) -> Iterator[None]:
    """Translate an OSError below `where`.

    Raises:
        DiskFullError: the disk, or a quota, is full.
        DiskDeniedError: permissions, or a read-only file system.
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
        return DiskFullError(f"cannot write to {where}: {reason}; free some space and try again")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return DiskDeniedError(f"cannot use {error.filename or where}: {reason}")
    if error.errno == errno.EEXIST:  # of mkdir: a file is there
        reason = os.strerror(errno.ENOTDIR)
    if error.errno in (errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP):
        return InvalidError(f"{error.filename or where} cannot be a store's directory: {reason}")
    return UnavailableError(f"cannot use {error.filename or where}: {reason}")


def unfinished_name(path: Path) -> Path:
    """A name beside `path` that nobody else uses, also where process ids are not unique: containers share file systems."""
    return path.with_name(f"{path.name}.{os.urandom(6).hex()}.new")


def new_file(path: Path) -> int:
    """Create a file, and open it to read and write; its descriptor.

    Raises:
        FileExistsError: it is there already.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        _inherit(fd, path.parent, 0o666, least=0o600)
    except BaseException:
        os.close(fd)
        os.unlink(path)
        raise
    return fd


def open_or_create(path: Path, flags: int = 0) -> int:
    """Open a file to read and write, made empty where it does not exist; its descriptor. Nobody sees it before it has its owner."""
    while True:
        with suppress(FileNotFoundError):
            return os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | flags)
        unfinished = unfinished_name(path)
        os.close(new_file(unfinished))
        try:
            with suppress(FileExistsError):
                os.link(unfinished, path)
        finally:
            os.unlink(unfinished)


def make_directory(path: Path) -> None:
    """Create a directory, where it does not exist. Nobody sees it before it has its owner."""
    if path.is_dir():
        return
    unfinished = unfinished_name(path)
    unfinished.mkdir(0o700)
    try:
        fd = os.open(unfinished, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            _inherit(fd, path.parent, 0o2777, least=0o700)
        finally:
            os.close(fd)
        unfinished.rename(path)
    except OSError:
        unfinished.rmdir()
        if not path.is_dir():  # somebody may have been faster
            raise


def _inherit(fd: int, directory: Path, bits: int, *, least: int) -> None:
    """Give what was created the owner, the group, and these bits of the mode of its directory: as far as the system lets us."""
    wanted, has = directory.stat(), os.fstat(fd)
    if (has.st_uid, has.st_gid) != (wanted.st_uid, wanted.st_gid):
        try:
            os.fchown(fd, wanted.st_uid, wanted.st_gid)
        except OSError:  # only root gives files away; others may belong to the group
            with suppress(OSError):
                os.fchown(fd, -1, wanted.st_gid)
    with suppress(OSError):  # behind the owner, whose change may take bits away. Some file systems have no modes
        os.fchmod(fd, wanted.st_mode & bits | least)
