"""TreeFiles: the parts of trees in a file system, for a copy that moves those that its target lacks.

A tree is scanned first: that tells its digests, and where its files are. Chunks are cut of those files alone that the target lacks.
"""

from __future__ import annotations

import asyncio
import io
import os
from collections.abc import AsyncIterator, Hashable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import IO, NamedTuple, TypeVar

from tvix_store.chunking import DEFAULT_SIZES, BlobAssembler, CutChunk
from tvix_store.concurrency.coalesced import Coalesced
from tvix_store.concurrency.thread_to_its_end import thread_to_its_end
from tvix_store.errors import InvalidError, NotFoundError
from tvix_store.model.digest import EMPTY, Digest
from tvix_store.model.directory import Directory, SizeRule
from tvix_store.model.nodes import Node
from tvix_store.operations.ingest.scan import PIECE, LargeFile, TreeReader, WholeFiles
from tvix_store.operations.ingest.tree_builder import Unfinished, UnfinishedDirectory, UnfinishedFile
from tvix_store.services.blobs import Chunk
from tvix_store.services.frames import Frame
from tvix_store.services.granular import StoredChunk, wrong_size

_KEPT = 512 << 10
"""Bytes of small files of a tree that stay in memory: most trees are read once."""
_SCANNED, _TREES = 4 << 20, 256
"""Bytes of trees, and the number of trees, that are scanned in one go. What is asked about them afterwards shares calls."""
_SCANS_AT_ONCE = 2
_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


@dataclass(slots=True, eq=False)
class _File:
    """A file of a scanned tree. `content` is None where it is not kept. `pieces` are the chunks that it was cut into."""

    path: bytes
    digest: Digest
    size: int
    content: bytes | None
    pieces: list[tuple[bytes, _Piece]] = field(default_factory=list)

    def open(self) -> IO[bytes]:
        """Its content. Blocks.

        Raises:
            InvalidError: it is gone, or cannot be read.
        """
        if self.content is not None:
            return io.BytesIO(self.content)
        try:
            return open(os.open(self.path, _READ), "rb", buffering=0)
        except OSError as error:
            raise _changed(self) from error


class _Piece(NamedTuple):
    """A chunk in a file."""

    file: _File
    start: int
    size: int


@dataclass(frozen=True, slots=True)
class ScannedTree:
    """A tree of the file system: its root node, and its directories by digest."""

    node: Node
    directories: dict[Digest, Directory]
    files: Sequence[_File] = field(repr=False)


class _Wanted(NamedTuple):
    """A tree to scan."""

    path: Path
    rule: SizeRule
    weight: int


class TreeFiles:
    """The Parts of trees that are scanned at the time. What is in place of a file by now is never given for it."""

    def __init__(self) -> None:
        self._scans = Coalesced(_scan_all, most=_SCANNED, at_once=_SCANS_AT_ONCE, weigh=lambda each: each.weight)
        # Equal files, and chunks, may stand in several trees, of which one ends before the other.
        self._files: dict[Digest, list[_File]] = {}
        self._pieces: dict[bytes, list[_Piece]] = {}

    @asynccontextmanager
    async def scanned(self, path: Path, rule: SizeRule, size: int) -> AsyncIterator[ScannedTree]:
        """The directory, regular file or symlink at `path`, of some `size` in bytes. Its parts are there until the end.

        Raises:
            InvalidError: something in the tree cannot be stored, or changed while it was read.
            DeniedError: something in it may not be read.
        """
        [tree] = await self._scans([_Wanted(path, rule, min(size, _SCANNED) + _SCANNED // _TREES)])
        for file in tree.files:
            self._files.setdefault(file.digest, []).append(file)
        try:
            yield tree
        finally:
            for file in tree.files:
                _remove(self._files, file.digest, file)
                for digest, piece in file.pieces:
                    _remove(self._pieces, digest, piece)

    async def close(self) -> None:
        """End what is under way."""
        await self._scans.close()

    async def get_directories(self, digests: Sequence[Digest]) -> list[Directory]:
        """Directories are given with their tree, and not asked for."""
        raise NotFoundError("directory", digests[0])

    async def list_chunks(self, blobs: Sequence[Chunk]) -> list[Sequence[Frame]]:
        """As `Parts.list_chunks`. Files are cut as our stores cut them."""
        lists: list[Sequence[Frame]] = []
        for blob in blobs:
            if blob.size <= DEFAULT_SIZES.minimum:
                lists.append([Frame(blob.digest.raw, blob.size, blob.size)])
                continue
            file = self._file(blob.digest)
            if file.size != blob.size:
                raise wrong_size("blob", blob.digest, blob.size)
            pieces = await asyncio.to_thread(_cut, file)
            for digest, piece in pieces:
                self._pieces.setdefault(digest, []).append(piece)
            file.pieces += pieces
            lists.append([Frame(digest, piece.size, piece.size) for digest, piece in pieces])
        return lists

    async def get_chunks(self, chunks: Sequence[Frame]) -> list[StoredChunk]:
        """As `Parts.get_chunks`. Chunks are not compressed."""
        return await asyncio.to_thread(_read, [(chunk.digest, self._piece(chunk)) for chunk in chunks])

    def _file(self, digest: Digest) -> _File:
        found = self._files.get(digest)
        if not found:
            raise NotFoundError("blob", digest)
        return found[-1]

    def _piece(self, chunk: Frame) -> _Piece:
        found = self._pieces.get(chunk.digest)
        if found:
            return found[-1]
        file = self._file(Digest(chunk.digest))
        return _Piece(file, 0, file.size)


def _remove(table: dict[K, list[V]], key: K, value: V) -> None:
    values = table[key]
    values.remove(value)
    if not values:
        del table[key]


async def _scan_all(wanted: Sequence[_Wanted]) -> list[ScannedTree]:
    return await thread_to_its_end(lambda: [_scan(each.path, each.rule) for each in wanted])


def _scan(path: Path, rule: SizeRule) -> ScannedTree:
    reader = TreeReader(path)
    digests: list[Digest] = []
    contents: dict[int, bytes] = {}
    kept = 0

    def note(number: int, digest: Digest) -> None:
        digests.extend([EMPTY] * (number + 1 - len(digests)))
        digests[number] = digest

    for event in reader.events():
        match event:
            case WholeFiles(_, numbers, blobs):
                for number, blob in zip(numbers, blobs, strict=True):
                    note(number, Digest.of(blob))
                    if kept + len(blob) <= _KEPT:
                        kept += len(blob)
                        contents[number] = blob
            case LargeFile():
                note(event.number, event.digest())
    directories = {directory.digest: directory for directory in reader.tree.finished(digests, rule)}
    assert reader.tree.root is not None
    files = [
        _File(place, digests[file.number], file.size, contents.get(file.number))
        for place, file in _files_below(os.fsencode(path), reader.tree.root)
    ]
    return ScannedTree(reader.tree.root_node(digests), directories, files)


def _files_below(path: bytes, root: Unfinished) -> Iterator[tuple[bytes, UnfinishedFile]]:
    """The files, each with its path."""
    left = [(path, root)]
    while left:
        place, node = left.pop()
        if isinstance(node, UnfinishedFile):
            yield place, node
        elif isinstance(node, UnfinishedDirectory):
            left += [(b"%s/%s" % (place, name), child) for name, child in node.entries.items()]


def _cut(file: _File) -> list[tuple[bytes, _Piece]]:
    """The chunks of a file, by digest, in order."""
    assembler = BlobAssembler()
    pieces: list[tuple[bytes, _Piece]] = []
    start = 0

    def add(chunks: Sequence[CutChunk]) -> None:
        nonlocal start
        for digest, data in chunks:
            pieces.append((digest, _Piece(file, start, len(data))))
            start += len(data)

    with file.open() as content:
        while data := content.read(PIECE):
            add(assembler.feed(data))
    add(assembler.finish())
    if assembler.digest != file.digest.raw:
        raise _changed(file)
    return pieces


def _read(pieces: Sequence[tuple[bytes, _Piece]]) -> list[StoredChunk]:
    chunks: list[StoredChunk] = []
    for file, of_file in groupby(pieces, lambda each: each[1].file):
        with file.open() as content:
            for digest, piece in of_file:
                content.seek(piece.start)
                data = content.read(piece.size)
                if len(data) != piece.size or Digest.of(data).raw != digest:
                    raise _changed(file)
                chunks.append(StoredChunk(digest, piece.size, data))
    return chunks


def _changed(file: _File) -> InvalidError:
    return InvalidError(f"{os.fsdecode(file.path)} changed while it was read")
