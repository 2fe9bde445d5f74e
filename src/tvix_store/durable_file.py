"""Small files that survive a power cut."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

UNFINISHED = ".new"
"""The suffix of a file that has not got its name yet."""


def replace_file(path: Path, data: bytes, mode: int = 0o600, *, takes_after: bool = True) -> None:
    """Create or replace a file. After a power cut, it has either its old or its new content. Blocks, and raises OSError.

    A file that is replaced keeps its owner, as far as this user may give files away, and its mode, where the new one `takes_after`
    it. Where there was none, the new one has `mode`, and the owner of its directory. With `takes_after=False` it has `mode`, and
    belongs to this user.
    """
    unfinished = path.with_name(f".{os.urandom(6).hex()}{UNFINISHED}")
    try:
        fd = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as error:
        error.filename = str(path)  # nobody knows the other name
        raise
    try:
        with open(fd, "wb") as file:
            if takes_after:
                _take_after(fd, path, mode)
            else:
                os.fchmod(fd, mode)
            file.write(data)
            file.flush()
            os.fsync(fd)
        unfinished.rename(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def sync_directory(directory: Path) -> None:
    """Make the names in a directory durable. Blocks."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _take_after(fd: int, path: Path, mode: int) -> None:
    try:
        owner = path.stat()
        mode = stat.S_IMODE(owner.st_mode)
    except FileNotFoundError:
        owner = path.parent.stat()
    with suppress(PermissionError):
        os.fchown(fd, owner.st_uid, owner.st_gid)
    os.fchmod(fd, mode)
