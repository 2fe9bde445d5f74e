"""The rules for names of children in a directory, and for targets of symlinks."""

from __future__ import annotations

from tvix_store.errors import InvalidError

MAX_NAME = 255
"""Longest child name in bytes that Nix reads from a NAR, and that Linux file systems take."""
MAX_TARGET = 4095
"""Longest symlink target in bytes that Nix reads from a NAR."""


def check_name(name: bytes) -> bytes:
    """Return `name` if a directory may hold a child called so.

    Raises:
        InvalidError: it is empty, `.` or `..`, or holds `/` or NUL, or is too long.
    """
    if not name:
        raise InvalidError("a child's name is empty")
    if b"/" in name or b"\0" in name:
        raise InvalidError(f"child name {show(name)} holds a slash or a NUL")
    if name in (b".", b".."):
        raise InvalidError(f"child name {show(name)} is reserved")
    if len(name) > MAX_NAME:
        raise InvalidError(f"child name {show(name)} is longer than {MAX_NAME} bytes")
    return name


def check_target(target: bytes) -> bytes:
    """Return `target` if a symlink may point there.

    Raises:
        InvalidError: it is empty, holds NUL, or is too long.
    """
    if not target:
        raise InvalidError("a symlink's target is empty")
    if b"\0" in target:
        raise InvalidError(f"symlink target {show(target)} holds a NUL")
    if len(target) > MAX_TARGET:
        raise InvalidError(f"symlink target {show(target)} is longer than {MAX_TARGET} bytes")
    return target


def as_text(name: bytes) -> str:
    """`name` for people, in full: bytes that are no UTF-8 as in `\\xff`."""
    return name.decode("utf-8", "backslashreplace")


def show(name: bytes) -> str:
    """`name` for a message: readable, on one line, cut to a sane length."""
    if len(name) > 80:
        return show(name[:77]) + "…"
    return ascii(name.decode("utf-8", "surrogateescape"))
