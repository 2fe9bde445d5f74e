"""The exact bytes of each piece of a NAR, and their sizes.

Concatenated in the order of the events they are a NAR, so a loop over thousands of files can do without a machine:

    MAGIC + DIRECTORY_START + entry_start(name) + file_start(size, False) + contents + file_end(size) + ENTRY_END + DIRECTORY_END

Nothing is checked here: names come sorted and satisfy `check_name`, targets `check_target`, sizes fit 64 bits.
"""

from __future__ import annotations


def string(value: bytes) -> bytes:
    """`value` as NAR writes it: length, bytes, zeros up to a multiple of 8."""
    return len(value).to_bytes(8, "little") + value + padding(len(value))


def padding(size: int) -> bytes:
    """The zeros behind `size` bytes of a string."""
    return bytes(-size % 8)


def _strings(*values: bytes) -> bytes:
    return b"".join(map(string, values))


MAGIC = _strings(b"nix-archive-1")
"""The first bytes of every archive."""
CLOSE = _strings(b")")
PLAIN_HEAD = _strings(b"(", b"type", b"regular", b"contents")
"""A file up to its size."""
EXECUTABLE_HEAD = _strings(b"(", b"type", b"regular", b"executable", b"", b"contents")
"""An executable file up to its size."""
SYMLINK_HEAD = _strings(b"(", b"type", b"symlink", b"target")
"""A symlink up to the length of its target."""
ENTRY_HEAD = _strings(b"entry", b"(", b"name")
"""An entry up to the length of its name."""
ENTRY_NODE = _strings(b"node")
"""The bytes between an entry's name and its node."""
DIRECTORY_START = _strings(b"(", b"type", b"directory")
DIRECTORY_END = CLOSE
ENTRY_END = CLOSE

# Indexed by size mod 8: these are taken for every file of a tree.
FILE_ENDS = tuple(padding(n) + CLOSE for n in range(8))
NAME_ENDS = tuple(padding(n) + ENTRY_NODE for n in range(8))


def file_start(size: int, executable: bool) -> bytes:
    """A file up to its contents."""
    return (EXECUTABLE_HEAD if executable else PLAIN_HEAD) + size.to_bytes(8, "little")


def file_end(size: int) -> bytes:
    """The bytes behind `size` bytes of contents."""
    return FILE_ENDS[size & 7]


def symlink(target: bytes) -> bytes:
    """A whole symlink."""
    return SYMLINK_HEAD + string(target) + CLOSE


def entry_start(name: bytes) -> bytes:
    """An entry of a directory up to its node."""
    size = len(name)
    return ENTRY_HEAD + size.to_bytes(8, "little") + name + NAME_ENDS[size & 7]


def _string_size(size: int) -> int:
    return 8 + size + -size % 8


DIRECTORY_SIZE = len(DIRECTORY_START) + len(DIRECTORY_END)
"""Bytes that a directory takes, without its entries."""


def file_size(size: int, executable: bool) -> int:
    """Bytes that a file of `size` bytes takes."""
    return len(EXECUTABLE_HEAD if executable else PLAIN_HEAD) + _string_size(size) + len(CLOSE)


def symlink_size(target: bytes) -> int:
    """Bytes that a symlink takes."""
    return len(SYMLINK_HEAD) + _string_size(len(target)) + len(CLOSE)


def entry_size(name: bytes) -> int:
    """Bytes that an entry takes, without its node."""
    return len(ENTRY_HEAD) + _string_size(len(name)) + len(ENTRY_NODE) + len(ENTRY_END)
