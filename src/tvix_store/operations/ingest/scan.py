"""Reading a tree from a file system in the order of its NAR, in batches: what `import_content` feeds on.

Runs in a thread of its own, one system call after the other; everything expensive happens to the batches, elsewhere.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path

from blake3 import blake3

from tvix_store.chunking import DEFAULT_SIZES, cut
from tvix_store.errors import InvalidError, StoreError, of_disk
from tvix_store.model.digest import Digest
from tvix_store.model.nodes import SymlinkNode
from tvix_store.nar import tokens
from tvix_store.operations.ingest.files_cache import FilesCache
from tvix_store.operations.ingest.tree_builder import UnfinishedDirectory, UnfinishedFile, UnfinishedTree
from tvix_store.operations.trees.open_directory import OpenDirectory

WHOLE_FILE = 8 << 20
"""Bytes up to which a file is read as a whole, and the reader goes on. A larger one is read when its turn comes."""
BATCH_BYTES = 4 << 20
BATCH_FILES = 1024
PIECE = 1 << 20
_HASHED_AT_ONCE = 8 << 20
"""Bytes that several threads hash together: fewer are not worth starting them."""
_TICK = 20_000_000
"""Nanoseconds: twice what the coarsest clock of Linux (100 Hz) ticks, from which a file system takes its times."""
_KINDS = {
    stat.S_IFSOCK: "a socket",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
}
_CHANGED = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EINVAL, errno.ESTALE}
"""The message for an entry that is gone, or is of another kind than its directory said."""


def _wrong_size(fd: int, path: bytes, size: int) -> InvalidError:
    """What to raise where a file holds more or less than the `size` bytes that it was said to have."""
    if os.fstat(fd).st_size != size:
        return ChangedError(path)
    return InvalidError(
        f"{os.fsdecode(path)} does not hold the {size} bytes that its file system tells, as files of /proc and /sys; "
        "copy it, and import the copy"
    )


class ChangedError(InvalidError):
    """Something in the tree is not what it was when its reading began."""

    def __init__(self, path: bytes) -> None:
        super().__init__(f"{os.fsdecode(path)} changed while it was read; import it again when nothing writes to it")


@dataclass(frozen=True, slots=True)
class WholeFiles:
    """Whole files: `blobs[n]` is the content of file number `numbers[n]`. `nar` are the bytes of the NAR up to their end."""

    nar: list[bytes]
    numbers: list[int]
    blobs: list[bytes]


@dataclass(frozen=True, slots=True)
class KnownFiles:
    """Files that were not read, since their contents are known: file number `numbers[n]` has `digests[n]`; `size` bytes in all."""

    numbers: list[int]
    digests: list[Digest]
    size: int


@dataclass(frozen=True, slots=True)
class LargeFile:
    """File number `number`, open while this is the reader's last event. The NAR goes on with its contents."""

    number: int
    size: int
    executable: bool
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
            ChangedError: its size has changed.
            InvalidError: its file system told a wrong size.
        """
        # Read, not mapped: a mapped file that is cut short meanwhile kills the process.
        at = 0
        while at < self.size:
            data = os.pread(self._fd, min(most, self.size - at), at)
            at += len(data)
            if not data or (at == self.size and os.pread(self._fd, 1, at)):
                raise _wrong_size(self._fd, self._path, self.size)
            yield data

    def changed(self) -> ChangedError:
        """What to raise where its contents are not what they were."""
        return ChangedError(self._path)


Event = WholeFiles | LargeFile | KnownFiles


class TreeReader:
    """One reading of the tree at `path`. First iterate over `events`, then ask for `tree`.

    With `cache`, files that it knows are not read: where it knows any, the reader `looks_up`, and the NAR's bytes are not complete.

    Raises:
        NotFoundError: the path does not exist.
        InvalidError: it holds something else than directories, regular files and symlinks.
        ChangedError: a file or directory changed between the begin and the end of its reading.
        DeniedError: something in it may not be read.
    """

    def __init__(self, path: Path, *, flat: bool = False, cache: FilesCache | None = None) -> None:
        self._path = path
        self.flat = flat
        self._cache = cache
        self.looks_up = bool(cache)
        self.keys: list[bytes | None] = []
        """By the files' numbers: what the cache knows them by, where there is one."""
        self._above: list[bytes] = []
        self._name = os.fsencode(path)
        """What is being read, in the directories `_above`. They are joined for errors only: they may be many."""
        self._files = 0
        self._nar: list[bytes] = [tokens.MAGIC]
        self._numbers: list[int] = []
        self._blobs: list[bytes] = []
        self._held = 0
        self._known_numbers: list[int] = []
        self._known_digests: list[Digest] = []
        self._known_size = 0
        self.depth = 1
        """Nodes inside each other, at most; complete behind the last event."""
        self.tree = UnfinishedTree()
        """What was read, complete behind the last event."""

    def events(self) -> Iterator[Event]:
        """The contents of all files, with the bytes of the NAR around them."""
        try:
            kind = stat.S_IFMT(os.lstat(self._path).st_mode)
        except OSError as error:
            raise self._unreadable(error) from error
        if self.flat and kind != stat.S_IFREG:
            raise InvalidError(f"{self._path} is not a regular file; nothing else has a flat hash")
        try:
            if kind == stat.S_IFDIR:
                self.tree.root = root = UnfinishedDirectory()
                yield from self._walk(root)
            elif kind == stat.S_IFREG:
                self.tree.root = yield from self._file()
            elif kind == stat.S_IFLNK:
                self.tree.root = self._symlink()
            else:
                raise self._refused(kind)
        except OSError as error:
            raise (ChangedError(self._where()) if error.errno in _CHANGED else self._unreadable(error)) from error
        yield from self._flush()

    def _walk(self, root: UnfinishedDirectory) -> Iterator[Event]:
        # A stack of our own: trees may be deeper than Python's.
        with OpenDirectory(self._path) as place:
            stack = [(root, *self._enter(place))]
            while stack:
                directory, entries, status = stack[-1]
                for name, kind in entries:
                    self._name = name
                    self._nar.append(tokens.entry_start(name))
                    if kind == stat.S_IFREG:
                        directory.entries[name] = yield from self._file(place.fd)
                    elif kind == stat.S_IFDIR:
                        place.enter(name)
                        directory.entries[name] = child = UnfinishedDirectory()
                        stack.append((child, *self._enter(place)))
                        break
                    elif kind == stat.S_IFLNK:
                        directory.entries[name] = self._symlink(place.fd)
                    else:
                        raise self._refused(kind)
                    self._nar.append(tokens.ENTRY_END)
                else:
                    stack.pop()
                    self.tree.directories.append(directory)
                    self._nar.append(tokens.DIRECTORY_END)
                    self._name = self._above.pop()
                    self._check_unchanged(place.fd, status)
                    if stack:
                        place.leave()
                        self._nar.append(tokens.ENTRY_END)

    def _enter(self, place: OpenDirectory) -> tuple[Iterator[tuple[bytes, int]], os.stat_result]:
        """Begin the directory that `place` is in now: the names and kinds of its entries, in order, and its status."""
        status = _settled_status(place.fd)
        entries = _sorted_entries(place.fd)
        self._above.append(self._name)
        self._nar.append(tokens.DIRECTORY_START)
        self.depth = max(self.depth, len(self._above) + bool(entries))
        return iter(entries), status

    def _symlink(self, directory: int | None = None) -> SymlinkNode:
        node = SymlinkNode(os.readlink(self._name, dir_fd=directory))
        self._nar.append(tokens.symlink(node.target))
        return node

    def _file(self, directory: int | None = None) -> Generator[Event, None, UnfinishedFile]:
        if self.looks_up:
            known = self._known_file(os.stat(self._name, dir_fd=directory, follow_symlinks=False))
            if known is not None:
                if len(self._known_numbers) >= BATCH_FILES:
                    yield from self._flush()
                return known
        fd = os.open(self._name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=directory)
        try:
            status = _settled_status(fd)
            if not stat.S_ISREG(status.st_mode):  # it was one when its directory was read
                raise ChangedError(self._where())
            file = self._numbered(status)
            if self._cache is not None:
                self.keys.append(self._cache.key(status))
            self._nar.append(tokens.file_start(file.size, file.executable))
            if file.size <= WHOLE_FILE:
                # One byte more than there should be, to see a file that grows. Local file systems give all at once.
                data = os.read(fd, file.size + 1)
                while file.size > len(data) and (more := os.read(fd, file.size - len(data) + 1)):
                    data += more
                if len(data) != file.size:
                    raise _wrong_size(fd, self._where(), file.size)
                self._check_unchanged(fd, status)
                self._numbers.append(file.number)
                self._blobs.append(data)
                self._held += file.size
                self._nar += (data, tokens.file_end(file.size))
                if self._held >= BATCH_BYTES or len(self._blobs) >= BATCH_FILES:
                    yield from self._flush()
            else:
                yield from self._flush()
                yield LargeFile(file.number, file.size, file.executable, fd, self._where())
                self._check_unchanged(fd, status)
                self._nar.append(tokens.file_end(file.size))
        finally:
            os.close(fd)
        return file

    def _check_unchanged(self, fd: int, before: os.stat_result) -> None:
        """Refuse the open file or directory if its status has changed."""
        now = os.fstat(fd)
        if (
            now.st_ctime_ns != before.st_ctime_ns
            or now.st_mtime_ns != before.st_mtime_ns
            or now.st_size != before.st_size
            or now.st_ino != before.st_ino
        ):
            raise ChangedError(self._where())

    def _known_file(self, status: os.stat_result) -> UnfinishedFile | None:
        """The file, if the cache knows it."""
        assert self._cache is not None
        key = self._cache.key(status)
        digest = self._cache.digest(key)
        if digest is None or not stat.S_ISREG(status.st_mode):
            return None
        file = self._numbered(status)
        self.keys.append(key)
        self._known_numbers.append(file.number)
        self._known_digests.append(digest)
        self._known_size += file.size
        return file

    def _numbered(self, status: os.stat_result) -> UnfinishedFile:
        self._files += 1
        return UnfinishedFile(self._files - 1, status.st_size, bool(status.st_mode & stat.S_IXUSR) and not self.flat)

    def _flush(self) -> Iterator[Event]:
        if self._known_numbers:
            yield KnownFiles(self._known_numbers, self._known_digests, self._known_size)
            self._known_numbers, self._known_digests, self._known_size = [], [], 0
        if self._nar or self._blobs:
            yield WholeFiles(self._taken_nar(), self._numbers, self._blobs)
        self._numbers, self._blobs, self._held = [], [], 0

    def _taken_nar(self) -> list[bytes]:
        nar, self._nar = self._nar, []
        return nar

    def _where(self) -> bytes:
        """The whole path of what is being read."""
        return os.path.join(*self._above, self._name)

    def _refused(self, kind: int) -> InvalidError:
        return InvalidError(
            f"{os.fsdecode(self._where())} is {_KINDS.get(kind, 'a special file')}; "
            "only directories, regular files and symlinks can be stored"
        )

    def _unreadable(self, error: OSError) -> StoreError:
        return of_disk(error, f"cannot read {os.fsdecode(self._where())}: {error.strerror}", InvalidError)


def _settled_status(fd: int) -> os.stat_result:
    """The status of what is open, in which any later change will show.

    Times have the grain of a clock's tick: what is written in the tick of the last change leaves them as they are. So what was
    changed just now is looked at again when that tick is over.
    """
    status = os.fstat(fd)
    if 0 <= time.time_ns() - status.st_ctime_ns < _TICK:
        time.sleep(_TICK / 1e9)
        status = os.fstat(fd)
    return status


def _sorted_entries(directory: int) -> list[tuple[bytes, int]]:
    with os.scandir(directory) as entries:
        return sorted((os.fsencode(entry.name), _kind(entry)) for entry in entries)


def _kind(entry: os.DirEntry[str]) -> int:
    # Its directory knows the common ones, which saves to ask for each.
    if entry.is_file(follow_symlinks=False):
        return stat.S_IFREG
    if entry.is_dir(follow_symlinks=False):
        return stat.S_IFDIR
    if entry.is_symlink():
        return stat.S_IFLNK
    return stat.S_IFMT(entry.stat(follow_symlinks=False).st_mode)
