"""TreeCopier: brings a tree from one store into another. Only parts that the target lacks are moved.

Directories are asked for by level: one that the target has is not entered. The target says which files of the other directories it
lacks. The source lists the chunks of the missing files, and the target says which chunks it lacks. Contents come first and
directories last, from the leaves. So a directory in the target has all below it, whenever a copy stops. What has arrived is not
sent again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from itertools import count
from types import MappingProxyType
from typing import NamedTuple, Self, TypeAlias

from tvix_store.concurrency.coalesced import Coalesced
from tvix_store.concurrency.each_at_once import each_at_once
from tvix_store.errors import CorruptError, ExhaustedError, InvalidError
from tvix_store.model.digest import Digest
from tvix_store.model.directory import Directory
from tvix_store.model.nodes import DirectoryNode, FileNode, Node
from tvix_store.model.store_path import StorePath
from tvix_store.nar.reader import MAX_DEPTH
from tvix_store.operations.granular.account import Account
from tvix_store.operations.granular.copy_chunks import ChunkCopier
from tvix_store.operations.granular.copy_deltas import DeltaCopier
from tvix_store.operations.granular.plain import granular_of
from tvix_store.services.batches import filling
from tvix_store.services.blobs import Chunk
from tvix_store.services.directories import parse
from tvix_store.services.frames import Frame
from tvix_store.services.granular import MAX_CHUNK, MAX_DIRECTORIES, MAX_STORED, Parts
from tvix_store.services.store import Store

Read: TypeAlias = Callable[[Digest, int], AsyncIterator[bytes]]
_QUESTION = 10_000
"""Digests that are asked for in one call."""
_DIRECTORIES = 1000
"""Directories that are fetched in one call: some 800 bytes each."""
_DIRECTORY_CALLS = 2
"""Calls for directories at a time, each of up to MAX_DIRECTORIES bytes."""
_DIRECTORY_PUTS = 2
"""Calls for new directories at a time. Many small trees are complete nearly at once: what waits a moment shares the next call."""
_SMALL_GRAPH = 1 << 20
"""Bytes of missing directories up to which many trees are copied at a time: some 15,000 files. They stay in memory, and take some
ten times as much there, until their contents are at the target. A tree with more is copied alone, with up to MAX_DIRECTORIES."""
_LISTED_FILES, _LISTED_BYTES = 4096, 4 << 30
"""Files, and their bytes, whose chunks are listed at a time: 4 GiB have 32,000 chunks, which take 10 MB."""
_LISTINGS = 1
"""Calls for lists at a time, each for many callers. A server may list a million chunks in one, which take 150 MB meanwhile."""
_LONG_LIST = 64 << 10
"""Chunks of such files up to which many trees are copied at a time. A tree with more goes on alone."""
_LARGE_AT_ONCE = 16
"""Files of several chunks that are copied at a time."""
_CHUNKS = 8192
"""Chunks of one file that are asked for, and moved, at a time."""


class _Place(NamedTuple):
    """Where files stand: below the root node of a store path, in directories that the target lacks."""

    path: StorePath | None
    root: Node
    directories: Mapping[Digest, Directory]


_NOTHING: Mapping[Digest, Directory] = MappingProxyType({})


class TreeCopier:
    """Copies trees of `parts` to `target`, many at a time; they share calls. `name` names the source, for messages.

    `read` gives a whole blob, up to a number of bytes. A source that lists no chunk of more than MAX_CHUNK needs none.
    """

    def __init__(self, parts: Parts, target: Store, account: Account, name: str, read: Read | None = None) -> None:
        self._target = target
        self._from, self._to = parts, granular_of(target)
        self._account = account
        self._name = name
        self._read = read
        self._chunks = ChunkCopier(self._from, self._to, self._name, account)
        self._deltas: DeltaCopier | None = None
        self._lacks_directories = _lacking(self._to.missing_directories)
        self._lacks_blobs = _lacking(target.blobs.missing)
        self._lacks_chunks = _lacking(self._to.missing_chunks)
        self._get_directories = Coalesced(self._from.get_directories, most=_DIRECTORIES, at_once=_DIRECTORY_CALLS)
        self._directories_put = Coalesced(self._put_some_directories, most=MAX_STORED, at_once=_DIRECTORY_PUTS, weigh=_encoded_size)
        self._list_chunks = Coalesced(self._from.list_chunks, most=_LISTED_FILES, at_once=_LISTINGS, weigh=_listing)
        self._large = asyncio.Lock()
        """Of the tree whose directories take much memory."""
        self._long = asyncio.Lock()
        """Of the tree whose lists of chunks do."""

    @classmethod
    def between(cls, source: Store, target: Store, account: Account, *, deltas: bool | None = None) -> Self:
        """Copies trees of `source`.

        `deltas` says whether files may be sent as the difference from others. None leaves it to the speed of the link.
        """

        def read(digest: Digest, most: int) -> AsyncIterator[bytes]:
            return source.blobs.read(digest, 0, most)

        copier = cls(granular_of(source), target, account, source.name or "the source", read)
        copier._deltas = DeltaCopier.between(source, target, account, lambda: copier._chunks.rate, wanted=deltas)
        return copier

    async def copy(
        self,
        root: Node,
        most: int,
        path: StorePath | None = None,
        *,
        given: Mapping[Digest, Directory] = _NOTHING,
        thorough: bool = False,
    ) -> None:
        """Return when the target has all that `root`, the root node of `path`, reaches.

        A directory in the target is taken to be complete, as to its files too, unless the copy is `thorough`. Nothing is copied of
        files that have more than `most` bytes together: a source could make them as large as it likes. Directories that are `given`
        are not asked for: then all of the tree must be.

        Raises:
            NotFoundError: the source lacks a part.
            CorruptError: the source gives wrong content, or too much.
            ExhaustedError: the tree has too many directories, or the target is full.
        """
        async with AsyncExitStack() as alone:
            directories = await self._missing_directories(root, _SMALL_GRAPH, given, thorough=thorough)
            if directories is None:
                await alone.enter_async_context(self._large)
                directories = await self._missing_directories(root, MAX_DIRECTORIES, given, thorough=thorough)
            if directories is None:
                raise ExhaustedError(f"the directories of a tree have more than {MAX_DIRECTORIES} bytes")
            await self._copy_contents(root, most, path, directories)

    async def _copy_contents(self, root: Node, most: int, path: StorePath | None, directories: dict[Digest, Directory]) -> None:
        files = {root.digest: root} if isinstance(root, FileNode) else {}
        for directory in directories.values():
            for node in directory.entries.values():
                if isinstance(node, FileNode):
                    files[node.digest] = node
        if sum(file.size for file in files.values()) > most:
            raise CorruptError(f"{self._name} gives a tree whose files have more than {most} bytes, the size of its NAR")
        await self._copy_files(list(files.values()), _Place(path, root, directories))
        if isinstance(root, DirectoryNode):
            await self._put_directories(root.digest, directories)

    async def close(self) -> None:
        """End all that is under way."""
        await self._chunks.close()
        for questions in (self._lacks_directories, self._lacks_blobs, self._lacks_chunks):
            await questions.close()
        await self._get_directories.close()
        await self._directories_put.close()
        await self._list_chunks.close()

    async def _missing_directories(
        self, root: Node, most: int, given: Mapping[Digest, Directory], *, thorough: bool
    ) -> dict[Digest, Directory] | None:
        """The directories to copy, each after one that refers to it. None if they have more than `most` bytes."""
        found: dict[Digest, Directory] = {}
        size = 0
        level = [root.digest] if isinstance(root, DirectoryNode) else []
        for depth in count(1):
            if not level:
                break
            if depth > MAX_DEPTH:
                raise CorruptError(
                    f"{self._name} gives directories that are more than {MAX_DEPTH} inside each other; no NAR has these"
                )
            if not thorough:
                lacking = await self._lacks_directories(level)
                level = [digest for digest, is_lacking in zip(level, lacking, strict=True) if is_lacking]
            below: dict[Digest, None] = {}
            for at in range(0, len(level), _DIRECTORIES):
                some = level[at : at + _DIRECTORIES]
                got = [given[digest] for digest in some] if given else await self._get_directories(some)
                size += sum(map(_encoded_size, got))
                if size > most:
                    return None
                for digest, directory in zip(some, got, strict=True):
                    if directory.digest != digest:
                        raise CorruptError(f"{self._name} gives {directory.digest} as directory {digest}")
                    await parse(directory)
                    found[digest] = directory
                    below |= dict.fromkeys(child.digest for _, child in directory.directories())
            level = [digest for digest in below if digest not in found]
        return found

    async def _copy_files(self, files: Sequence[FileNode], place: _Place) -> None:
        lacking = await self._lacks_blobs([file.digest for file in files])
        missing = [file for file, is_lacking in zip(files, lacking, strict=True) if is_lacking]
        there = sum(file.size for file in files) - sum(file.size for file in missing)
        self._account.there += there
        self._account.moved(there)
        for some in filling(missing, lambda file: file.size, size=_LISTED_BYTES, count=_LISTED_FILES):
            await self._copy_some(some, place)

    async def _copy_some(self, files: Sequence[FileNode], place: _Place) -> None:
        async with AsyncExitStack() as alone:
            listed = await self._listed(files)
            if sum(map(len, listed)) > _LONG_LIST:
                del listed  # not kept while others have their turn
                await alone.enter_async_context(self._long)
                listed = await self._listed(files)
            await self._copy_listed(list(zip(files, listed, strict=True)), place)

    async def _listed(self, files: Sequence[FileNode]) -> Sequence[Sequence[Frame]]:
        try:
            listed = await self._list_chunks([Chunk(file.digest, file.size) for file in files])
        except InvalidError as error:
            raise CorruptError(f"{self._name}: {error}, as a node states") from None
        for file, chunks in zip(files, listed, strict=True):
            if sum(chunk.length for chunk in chunks) != file.size:
                raise CorruptError(f"{self._name}: the chunks of blob {file.digest} are not {file.size} bytes, as a node states")
        return listed

    async def _copy_listed(self, left: list[tuple[FileNode, Sequence[Frame]]], place: _Place) -> None:
        if self._deltas is not None and place.path is not None:
            done = await self._deltas.copy(place.path, place.root, place.directories, left, self._lacks_chunks)
            left = [each for each in left if each[0].digest not in done]
        alone = [chunks[0] for file, chunks in left if _is_own_chunk(file, chunks)]
        if alone:
            await self._chunks.copy(alone)
            self._account.moved(sum(chunk.length for chunk in alone))
        await each_at_once(self._copy_large, [each for each in left if not _is_own_chunk(*each)], _LARGE_AT_ONCE)

    async def _copy_large(self, listed: tuple[FileNode, Sequence[Frame]]) -> None:
        file, chunks = listed
        if any(chunk.length > MAX_CHUNK for chunk in chunks):
            await self._copy_whole(file)
            return
        for at in range(0, len(chunks), _CHUNKS):
            some = chunks[at : at + _CHUNKS]
            lacking = await self._lacks_chunks([Digest(chunk.digest) for chunk in some])
            missing = [chunk for chunk, is_lacking in zip(some, lacking, strict=True) if is_lacking]
            await self._chunks.copy(missing)
            moved = sum(chunk.length for chunk in some)
            self._account.there += moved - sum(chunk.length for chunk in {each.digest: each for each in missing}.values())
            self._account.moved(moved)
        try:
            await self._to.assemble(file.digest, [Chunk(Digest(chunk.digest), chunk.length) for chunk in chunks])
        except InvalidError as error:
            raise CorruptError(f"{self._name} lists wrong chunks: {error}") from None

    async def _copy_whole(self, file: FileNode) -> None:
        """Where the source lists no chunks that could be moved alone."""
        if self._read is None:
            raise CorruptError(f"{self._name} lists a chunk of blob {file.digest} that is too large to be moved")
        digest = await self._target.blobs.put(self._read(file.digest, file.size + 1))
        if digest != file.digest:
            raise CorruptError(f"{self._name} gives {digest} as blob {file.digest}")
        self._account.sent += file.size
        self._account.moved(file.size)

    async def _put_some_directories(self, directories: Sequence[Directory]) -> Sequence[None]:
        await self._to.put_directories(directories)
        return [None] * len(directories)

    async def _put_directories(self, root: Digest, directories: dict[Digest, Directory]) -> None:
        for some in filling(_leaves_first(root, directories), _encoded_size, size=MAX_STORED):
            try:
                await self._directories_put(some)
            except InvalidError as error:
                raise CorruptError(f"{self._name} gives a wrong directory: {error}") from None
            self._account.sent += sum(map(_encoded_size, some))


def _lacking(missing: Callable[[Sequence[Digest]], Awaitable[set[Digest]]]) -> Coalesced[Digest, bool]:
    """Whether each digest is one of those that `missing` tells, in few calls for all who ask."""

    async def are_missing(digests: Sequence[Digest]) -> list[bool]:
        absent = await missing(digests)
        return [digest in absent for digest in digests]

    return Coalesced(are_missing, most=_QUESTION)


def _encoded_size(directory: Directory) -> int:
    return len(directory.encoded)


def _listing(file: Chunk) -> int:
    """The weight of a file in a call for lists."""
    return 1 + file.size // (_LISTED_BYTES // _LISTED_FILES)


def _is_own_chunk(file: FileNode, chunks: Sequence[Frame]) -> bool:
    return len(chunks) == 1 and chunks[0].digest == file.digest.raw and file.size <= MAX_CHUNK


def _leaves_first(root: Digest, directories: dict[Digest, Directory]) -> Iterator[Directory]:
    """The directories, each after those that it refers to."""
    done: set[Digest] = set()
    entered: list[tuple[Digest, Iterator[Digest]]] = []

    def enter(digest: Digest) -> None:
        if digest in directories and digest not in done:
            done.add(digest)
            entered.append((digest, iter([child.digest for _, child in directories[digest].directories()])))

    enter(root)
    while entered:
        digest, children = entered[-1]
        child = next(children, None)
        if child is not None:
            enter(child)
        else:
            entered.pop()
            yield directories[digest]
