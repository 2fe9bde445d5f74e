"""Reading a tree from a file system in the order of its NAR, in batches: what `import_tree` feeds on.

Runs in a thread of its own, one system call after the other; everything expensive happens to the batches, elsewhere.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tvix_store.errors import DeniedError, InvalidError, StoreError
from tvix_store.model.digest import Digest
from tvix_store.model.directory import Directory, SizeRule
from tvix_store.model.nodes import DirectoryNode, FileNode, Node, SymlinkNode
from tvix_store.nar import tokens
from tvix_store.services.blobs import SMALL_BLOB

BATCH_BYTES = 4 << 20
BATCH_FILES = 1024
PIECE = 1 << 20
_KINDS = {
    stat.S_IFSOCK: "a socket",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
}


@dataclass(frozen=True, slots=True)
class SmallFiles:
    """Whole files: `blobs[n]` is the content of file number `first + n`. `nar` are the bytes of the NAR up to their end."""

    nar: list[bytes]
    first: int
    blobs: list[bytes]


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes of the large file number `file`, in order; `last` tells its end. `nar` are the bytes of the NAR up to here."""

    nar: list[bytes]
    file: int
    data: bytes
    last: bool


@dataclass(slots=True)
class _File:
    number: int
    size: int
    executable: bool


@dataclass(slots=True)
class _Directory:
    path: bytes
    entries: dict[bytes, _File | _Directory | SymlinkNode] = field(default_factory=dict)
    node: DirectoryNode | None = None


class TreeReader:
    """One reading of the tree at `path`. First iterate over `batches`, then ask for `directories` and `root`.

    Raises:
        InvalidError: the path does not exist, holds something else than directories, regular files and symlinks, or changes
            while it is read.
        DeniedError: something in it may not be read.
    """

    def __init__(self, path: Path, *, flat: bool = False) -> None:
        self._path = os.fsencode(path)
        self._flat = flat
        self._files = 0
        self._nar: list[bytes] = [tokens.MAGIC]
        self._blobs: list[bytes] = []
        self._first = 0
        self._held = 0
        self._root: _File | _Directory | SymlinkNode | None = None
        self._finished: list[_Directory] = []

    def batches(self) -> Iterator[SmallFiles | Piece]:
        """The contents of all files, with the bytes of the NAR around them."""
        try:
            yield from self._node(self._path, _kind(self._path), lambda node: setattr(self, "_root", node))
        except OSError as error:
            raise _translated(error, self._path) from error
        yield from self._flush()

    def directories(self, digests: list[Digest], rule: SizeRule) -> Iterator[Directory]:
        """The directories from the leaves to the root, when the digests of all files are known by their number."""
        for unfinished in self._finished:
            directory = Directory({name: self._made(child, digests) for name, child in unfinished.entries.items()})
            unfinished.node = directory.node(rule)
            yield directory

    def root(self, digests: list[Digest]) -> Node:
        """The root node, when all directories are made."""
        assert self._root is not None
        return self._made(self._root, digests)

    def _made(self, child: _File | _Directory | SymlinkNode, digests: list[Digest]) -> Node:
        match child:
            case _File(number, size, executable):
                return FileNode(digests[number], size, executable)
            case _Directory(node=node):
                assert node is not None
                return node
            case symlink:
                return symlink

    def _node(
        self, path: bytes, kind: int, put: Callable[[_File | _Directory | SymlinkNode], None]
    ) -> Iterator[SmallFiles | Piece]:
        if kind == stat.S_IFREG:
            yield from self._file(path, put)
        elif kind == stat.S_IFLNK:
            put(self._symlink(path))
        elif kind == stat.S_IFDIR and not self._flat:
            yield from self._tree(path, put)
        elif kind == stat.S_IFDIR:
            raise InvalidError(f"{os.fsdecode(path)} is a directory; only a regular file has a flat hash")
        else:
            raise InvalidError(
                f"{os.fsdecode(path)} is {_KINDS.get(kind, 'a special file')}; only directories, regular files and symlinks can be stored"
            )
