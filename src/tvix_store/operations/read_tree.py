"""Reading a tree from a file system in the order of its NAR, in batches: what `import_tree` feeds on.

Runs in a thread of its own, one system call after the other; everything expensive happens to the batches, elsewhere.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from blake3 import blake3

from tvix_store.chunking import DEFAULT_SIZES, cut
from tvix_store.errors import DeniedError, InvalidError, StoreError
from tvix_store.model.digest import Digest
from tvix_store.model.directory import Directory, SizeRule
from tvix_store.model.nodes import DirectoryNode, FileNode, Node, SymlinkNode
from tvix_store.nar import tokens
from tvix_store.services.blobs import SMALL_BLOB

BATCH_BYTES = 4 << 20
BATCH_FILES = 1024
PIECE = 1 << 20
_HASHED_AT_ONCE = 8 << 20
"""Bytes that several threads hash together: fewer are not worth starting them."""
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
class LargeFile:
    """File number `number`, open while this is the reader's last event. The NAR goes on with its contents."""

    number: int
    size: int
    _fd: int
    _path: bytes

    def first_chunk(self) -> Digest:
        """The digest of its first chunk, as a store of default chunk sizes cuts it."""
        return Digest.of(cut(os.pread(self._fd, DEFAULT_SIZES.maximum, 0))[0])

    def digest(self) -> Digest:
        """The digest of its contents."""
        hasher = blake3(max_threads=blake3.AUTO)
        for data in self.pieces(_HASHED_AT_ONCE):
            hasher.update(data)
        return Digest(hasher.digest())

    def pieces(self, most: int = PIECE) -> Iterator[bytes]:
        """Its contents, in pieces of up to `most` bytes.

        Raises:
            InvalidError: its size is not what it was.
        """
        # Read, not mapped: a mapped file that is cut short meanwhile kills the process.
        at = 0
        while at < self.size:
            data = os.pread(self._fd, min(most, self.size - at), at)
            at += len(data)
            if not data or (at == self.size and os.pread(self._fd, 1, at)):
                raise changed(self._path)
            yield data

    def changed(self) -> InvalidError:
        """What to raise where its contents are not what they were."""
        return changed(self._path)


Event = SmallFiles | LargeFile


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
    """One reading of the tree at `path`. First iterate over `events`, then ask for `directories` and `root`.

    Raises:
        InvalidError: the path does not exist, holds something else than directories, regular files and symlinks, or changes
            while it is read.
        DeniedError: something in it may not be read.
    """

    def __init__(self, path: Path, *, flat: bool = False) -> None:
        self._path = os.fsencode(path)
        self.flat = flat
        self._files = 0
        self._nar: list[bytes] = [tokens.MAGIC]
        self._blobs: list[bytes] = []
        self._first = 0
        self._held = 0
        self._root: _File | _Directory | SymlinkNode | None = None
        self._finished: list[_Directory] = []

    def events(self) -> Iterator[Event]:
        """The contents of all files, with the bytes of the NAR around them."""
        try:
            kind = stat.S_IFMT(os.lstat(self._path).st_mode)
            if self.flat and kind != stat.S_IFREG:
                raise InvalidError(f"{os.fsdecode(self._path)} is not a regular file; nothing else has a flat hash")
            if kind == stat.S_IFDIR:
                self._root = root = _Directory(self._path)
                yield from self._walk(root)
            elif kind == stat.S_IFREG:
                self._root = yield from self._file(self._path)
            elif kind == stat.S_IFLNK:
                self._root = self._symlink(self._path)
            else:
                raise _refused(self._path, kind)
        except OSError as error:
            raise _translated(error, self._path) from error
        yield from self._flush()

    def directories(self, digests: list[Digest], rule: SizeRule) -> Iterator[Directory]:
        """The directories from the leaves to the root, when the digests of all files are known by their number."""
        for unfinished in self._finished:
            directory = Directory({name: self._made(child, digests) for name, child in unfinished.entries.items()})
            unfinished.node = directory.node(rule)
            yield directory

    @property
    def is_directory(self) -> bool:
        return isinstance(self._root, _Directory)

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

    def _walk(self, root: _Directory) -> Iterator[Event]:
        # A stack of our own: trees may be deeper than Python's.
        self._nar.append(tokens.DIRECTORY_START)
        stack = [(root, _sorted_entries(root.path))]
        while stack:
            directory, entries = stack[-1]
            for entry in entries:
                self._nar.append(tokens.entry_start(entry.name))
                if entry.is_dir(follow_symlinks=False):
                    child = _Directory(entry.path)
                    directory.entries[entry.name] = child
                    self._nar.append(tokens.DIRECTORY_START)
                    stack.append((child, _sorted_entries(entry.path)))
                    break
                if entry.is_file(follow_symlinks=False):
                    directory.entries[entry.name] = yield from self._file(entry.path)
                elif entry.is_symlink():
                    directory.entries[entry.name] = self._symlink(entry.path)
                else:
                    raise _refused(entry.path, stat.S_IFMT(entry.stat(follow_symlinks=False).st_mode))
                self._nar.append(tokens.ENTRY_END)
            else:
                stack.pop()
                self._finished.append(directory)
                self._nar.append(tokens.DIRECTORY_END)
                if stack:
                    self._nar.append(tokens.ENTRY_END)

    def _symlink(self, path: bytes) -> SymlinkNode:
        node = SymlinkNode(os.readlink(path))
        self._nar.append(tokens.symlink(node.target))
        return node

    def _file(self, path: bytes) -> Generator[Event, None, _File]:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):  # it was one when its directory was read
                raise changed(path)
            # A flat hash knows no permissions, so Nix stores such a file as not executable.
            file = _File(self._files, status.st_size, bool(status.st_mode & stat.S_IXUSR) and not self.flat)
            self._nar.append(tokens.file_start(file.size, file.executable))
            if file.size <= SMALL_BLOB:
                # One byte more than there should be, to see a file that grows.
                data = os.read(fd, file.size + 1)
                if len(data) != file.size:
                    raise changed(path)
                self._files += 1
                self._blobs.append(data)
                self._held += file.size
                self._nar += (data, tokens.file_end(file.size))
                if self._held >= BATCH_BYTES or len(self._blobs) >= BATCH_FILES:
                    yield from self._flush()
            else:
                yield from self._flush()
                yield LargeFile(file.number, file.size, fd, path)
                self._files = self._first = file.number + 1
                self._nar.append(tokens.file_end(file.size))
        finally:
            os.close(fd)
        return file

    def _flush(self) -> Iterator[SmallFiles]:
        if self._nar or self._blobs:
            yield SmallFiles(self._taken_nar(), self._first, self._blobs)
        self._blobs, self._first, self._held = [], self._files, 0

    def _taken_nar(self) -> list[bytes]:
        nar, self._nar = self._nar, []
        return nar


def _sorted_entries(path: bytes) -> Iterator[os.DirEntry[bytes]]:
    with os.scandir(path) as entries:
        return iter(sorted(entries, key=lambda entry: entry.name))


def _refused(path: bytes, kind: int) -> InvalidError:
    return InvalidError(
        f"{os.fsdecode(path)} is {_KINDS.get(kind, 'a special file')}; only directories, regular files and symlinks can be stored"
    )


def changed(path: bytes) -> InvalidError:
    return InvalidError(f"{os.fsdecode(path)} changed while it was read; import it again when nothing writes to it")


def _translated(error: OSError, root: bytes) -> StoreError:
    path = os.fsdecode(error.filename if isinstance(error.filename, bytes) else root)
    if isinstance(error, PermissionError):
        return DeniedError(f"cannot read {path}: {error.strerror}")
    return InvalidError(f"cannot read {path}: {error.strerror}")
