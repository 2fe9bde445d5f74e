"""import_nar: take a NAR apart, while it arrives, into the blobs and directories of a store.

Small files are gathered into batches, large ones streamed; both are stored while the next bytes are read. Directories follow their
contents, leaves to root, as a stream that the directory service accepts only when it is whole: what stops on the way
leaves content that nothing refers to.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator
from dataclasses import dataclass, field

from tvix_store.errors import ExhaustedError
from tvix_store.model.digest import Digest
from tvix_store.model.directory import Directory, SizeRule
from tvix_store.model.nodes import DirectoryNode, FileNode, Node, SymlinkNode
from tvix_store.model.path_info import NarFacts
from tvix_store.nar import (
    DirectoryEnd,
    DirectoryStart,
    EntryEnd,
    EntryStart,
    Event,
    FileData,
    FileEnd,
    FileStart,
    NarReader,
    Symlink,
)
from tvix_store.operations.feed import Feed
from tvix_store.services.blobs import SMALL_BLOB, BlobService
from tvix_store.services.directories import DirectoryService

MAX_ENTRIES = 1_000_000
"""Most entries of a NAR that is taken: the largest paths of nixpkgs have a third of that. Bounds memory."""
MAX_UNFINISHED = 64 << 20
"""Most bytes of names and targets in directories whose end, or whose contents, are not there yet: 200,000 entries in one directory.
Without it, a million in one took 1 GB."""
_ENTRY_BYTES = 256
"""What an entry is counted for beside its name and target."""
_BATCH_BYTES = 2 << 20
_BATCH_FILES = 1024
_IN_FLIGHT = 3
"""Batches, or large files, that are being stored while the next bytes are read."""
_HASHED_HERE = 32 << 10
"""Bytes that are hashed on the event loop: it takes 25 µs, less than a thread's answer."""
_AT_ONCE = 256 << 10
"""Bytes that the reader is given at a time: it works on the event loop, some milliseconds for the tokens of small files."""


async def import_nar(
    blobs: BlobService,
    directories: DirectoryService,
    nar: AsyncIterable[bytes],
    *,
    size_rule: SizeRule = SizeRule.DOCUMENTED,
    max_size: int | None = None,
    max_entries: int = MAX_ENTRIES,
) -> tuple[Node, NarFacts]:
    """Store what the NAR holds; its root node, and what is true of the NAR. Memory is bounded.

    Raises:
        InvalidError: it is no NAR, or has more than `max_entries` entries; the error names the byte.
        ExhaustedError: it is larger than `max_size` bytes, has too many entries in its directories at once, or the store is full.
    """
    work = _Import(blobs, directories, size_rule)
    try:
        return await work.run(nar, max_size, max_entries)
    finally:
        await work.stop()


@dataclass(slots=True)
class _File:
    """A file whose digest is not known yet."""

    size: int
    executable: bool
    digest: Digest | None = None


@dataclass(slots=True)
class _Contents:
    """Contents on their way into the store: a batch of small files, which is gathered until `task` stores it, or a large file."""

    files: list[_File] = field(default_factory=list)
    blobs: list[bytes] = field(default_factory=list)
    size: int = 0
    task: asyncio.Task[None] | None = None


@dataclass(slots=True)
class _Directory:
    """A directory that is read, whose entries count as `size` bytes; `node` is known when it was sent to the directory service."""

    entries: dict[bytes, _File | _Directory | SymlinkNode] = field(default_factory=dict)
    size: int = 0
    node: DirectoryNode | None = None


class _Import:
    def __init__(self, blobs: BlobService, directories: DirectoryService, size_rule: SizeRule) -> None:
        self._blobs = blobs
        self._directories = directories
        self._size_rule = size_rule
        self._root: _File | _Directory | SymlinkNode | None = None
        self._open: list[_Directory] = []
        self._name = b""
        # The file that is being read: of a small one the pieces are kept, a large one goes on in a feed.
        self._file = _File(0, executable=False)
        self._pieces: list[bytes] = []
        self._large: Feed[bytes, None] | None = None
        # In the order of the NAR: contents, and directories, which wait until all contents before them are stored.
        self._work: deque[_Contents | _Directory] = deque()
        self._batch: _Contents | None = None
        self._storing = 0
        self._unfinished = 0
        self._sent: Feed[Directory, Digest] | None = None
        self._nar_hash = hashlib.sha256()
        self._hashing: asyncio.Future[None] | None = None

    async def run(self, nar: AsyncIterable[bytes], max_size: int | None, max_entries: int) -> tuple[Node, NarFacts]:
        reader = NarReader(max_entries=max_entries)
        size = 0
        async for large in nar:
            size += len(large)
            if max_size is not None and size > max_size:
                raise ExhaustedError(f"the NAR has more than {max_size} bytes, which are taken at most")
            await self._hash(large)
            for at in range(0, len(large), _AT_ONCE):
                for event in reader.feed(large if len(large) <= _AT_ONCE else large[at : at + _AT_ONCE]):
                    await self._take(event)
                await self._bound_unfinished()
        reader.finish()
        while self._work:
            await self._do_next()
        if self._sent is not None:
            await self._sent.end()
            await self._sent.task
        if self._hashing is not None:
            await self._hashing
        assert self._root is not None
        return _node(self._root), NarFacts(size, self._nar_hash.digest())

    async def stop(self) -> None:
        """Leave nothing running, whatever happened."""
        tasks = [each.task for each in self._work if isinstance(each, _Contents) and each.task is not None]
        running = [*tasks, *([self._sent.task] if self._sent is not None else ())]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        if self._hashing is not None:
            await asyncio.wait((self._hashing,))

    async def _hash(self, data: bytes) -> None:
        if self._hashing is not None:
            await self._hashing
            self._hashing = None
        if len(data) <= _HASHED_HERE:
            self._nar_hash.update(data)
            return
        self._hashing = asyncio.get_running_loop().run_in_executor(None, self._nar_hash.update, data)

    async def _take(self, event: Event) -> None:
        match event:
            case FileData(data):
                if self._large is None:
                    self._pieces.append(data)
                else:
                    await self._large.send(data)
            case EntryStart(name):
                self._name = name
            case FileStart(size, executable):
                self._file = _File(size, executable)
                self._add(self._file)
                if size > SMALL_BLOB:
                    await self._begin_large()
            case FileEnd():
                await self._end_file()
            case Symlink(target):
                self._add(SymlinkNode(target))
            case DirectoryStart():
                directory = _Directory()
                self._add(directory)
                self._open.append(directory)
            case DirectoryEnd():
                self._work.append(self._open.pop())
            case EntryEnd():
                pass

    def _add(self, child: _File | _Directory | SymlinkNode) -> None:
        if self._open:
            directory = self._open[-1]
            directory.entries[self._name] = child
            size = _ENTRY_BYTES + len(self._name) + (len(child.target) if isinstance(child, SymlinkNode) else 0)
            directory.size += size
            self._unfinished += size
        else:
            self._root = child

    async def _bound_unfinished(self) -> None:
        while self._work and (isinstance(self._work[0], _Directory) or self._unfinished > MAX_UNFINISHED):
            await self._do_next()
        if self._unfinished > MAX_UNFINISHED:
            raise ExhaustedError(f"the names in a directory of the NAR, and those around it, take more than {MAX_UNFINISHED} bytes")

    async def _begin_large(self) -> None:
        await self._make_room()
        file = self._file

        async def put(pieces: AsyncIterator[bytes]) -> None:
            file.digest = await self._blobs.put(pieces)

        self._large = Feed(put, room=2)
        self._work.append(_Contents(task=self._large.task))
        self._storing += 1

    async def _end_file(self) -> None:
        if self._large is not None:
            await self._large.end()
            self._large = None
            return
        if self._batch is None:
            self._batch = _Contents()
            self._work.append(self._batch)
        batch = self._batch
        batch.files.append(self._file)
        batch.blobs.append(self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces))
        batch.size += self._file.size
        self._pieces = []
        if batch.size >= _BATCH_BYTES or len(batch.files) >= _BATCH_FILES:
            await self._make_room()
            self._store(batch)

    def _store(self, batch: _Contents) -> None:
        """Begin to store the batch that was gathered."""
        if batch.task is None:
            batch.task = asyncio.create_task(self._put_batch(batch))
            self._batch = None
            self._storing += 1

    async def _put_batch(self, batch: _Contents) -> None:
        for file, digest in zip(batch.files, await self._blobs.put_many(batch.blobs), strict=True):
            file.digest = digest
        batch.blobs = []

    async def _make_room(self) -> None:
        while self._storing >= _IN_FLIGHT:
            await self._do_next()

    async def _do_next(self) -> None:
        """Wait for the next contents, or hand on the next directory: all contents that it needs are stored then."""
        work = self._work[0]
        if isinstance(work, _Contents):
            self._store(work)
            assert work.task is not None
            await work.task
            self._storing -= 1
        else:
            await self._send(work)
        self._work.popleft()

    async def _send(self, unfinished: _Directory) -> None:
        directory = Directory({name: _node(child) for name, child in unfinished.entries.items()})
        unfinished.node = directory.node(self._size_rule)
        unfinished.entries = {}
        self._unfinished -= unfinished.size
        if self._sent is None:
            self._sent = Feed(self._directories.put, room=64)
        await self._sent.send(directory)


def _node(made: _File | _Directory | SymlinkNode) -> Node:
    match made:
        case _File(size, executable, digest):
            assert digest is not None
            return FileNode(digest, size, executable)
        case _Directory(node=node):
            assert node is not None
            return node
        case symlink:
            return symlink
