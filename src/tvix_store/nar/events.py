"""Events: the content of a NAR in order, as the reader gives it and the writer takes it.

archive   = node
node      = FileStart FileData* FileEnd | Symlink | DirectoryStart (EntryStart node EntryEnd)* DirectoryEnd
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class FileStart:
    """A regular file begins; `size` bytes of contents follow, as FileData events."""

    size: int
    executable: bool


@dataclass(frozen=True, slots=True)
class FileData:
    """The next piece of a file's contents. Cuts have no meaning; an empty file has no piece."""

    data: bytes


@dataclass(frozen=True, slots=True)
class FileEnd:
    """The file is complete."""


@dataclass(frozen=True, slots=True)
class Symlink:
    """A symbolic link, whole."""

    target: bytes


@dataclass(frozen=True, slots=True)
class DirectoryStart:
    """A directory begins."""


@dataclass(frozen=True, slots=True)
class EntryStart:
    """A child of the open directory begins; its node follows."""

    name: bytes


@dataclass(frozen=True, slots=True)
class EntryEnd:
    """The child is complete."""


@dataclass(frozen=True, slots=True)
class DirectoryEnd:
    """The directory is complete."""


Event: TypeAlias = FileStart | FileData | FileEnd | Symlink | DirectoryStart | EntryStart | EntryEnd | DirectoryEnd
