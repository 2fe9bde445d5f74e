"""import_nar: take a NAR apart, while it arrives, into the blobs and directories of a store.

Small files are gathered into batches, large ones streamed; both are stored while the next bytes are read. Directories follow their
contents, leaves to root, as a stream that the directory service accepts only when it is whole. In a store with stages, all of it
goes to a stage. So an import that stops on the way, or finds another NAR than it should, leaves nothing.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from tvix_store.concurrency.background_hash import BackgroundHash
from tvix_store.concurrency.push_stream import PushStream
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
from tvix_store.operations.ingest.account import ImportAccount
from tvix_store.operations.ingest.target import Target
from tvix_store.services.blobs import SMALL_BLOB
from tvix_store.services.staging import NO_RECORDS, StagedNar
from tvix_store.services.store import Store

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
_MADE_HERE = 4096
"""Entries of a directory that is put together on the event loop, which takes 3 µs each."""
_HELD = 256 << 10
"""Bytes of the largest NAR whose directories are put together at its end."""
_AT_ONCE = 256 << 10
"""Bytes that the reader is given at a time: it works on the event loop, some milliseconds for the tokens of small files."""


async def import_nar(
    store: Store, nar: AsyncIterable[bytes], *, max_size: int | None = None, max_entries: int = MAX_ENTRIES
) -> tuple[Node, NarFacts]:
    """Store the content of the NAR, and return its root node and its facts. Memory is bounded.

    Raises:
        InvalidError: it is no NAR, or has more than `max_entries` entries; the error names the byte.
        ExhaustedError: it is larger than `max_size` bytes, has too many entries in its directories at once, or the store is full.
    """
    async with NarImport(store) as work:
        read = await work.read(nar, max_size, max_entries)
        await work.store()
        return read


@dataclass(slots=True)
class _File:
    """A file whose digest is not known yet."""

    size: int
    executable: bool
    digest: Digest | None = None


@dataclass(slots=True)
class _Directory:
    """A directory that is read, whose entries count as `size` bytes; `node` is known when it was sent to the directory service."""

    entries: dict[bytes, _File | _Directory | SymlinkNode] = field(default_factory=dict)
    size: int = 0
    node: DirectoryNode | None = None


class NarImport:
    """An import in steps, for who has something to do between them. Use as `async with`: at its end, nothing is left running.

    What was not stored by then is not in the store, unless that has no stages. With `rechecks`, what the store has already of the
    NAR is looked at, and mended where it is damaged. `size_rule` overrides the store's.
    `account` takes what was done.

    files: How many files were begun so far.
    """

    def __init__(
        self,
        store: Store,
        *,
        rechecks: bool = False,
        size_rule: SizeRule | None = None,
        account: ImportAccount | None = None,
    ) -> None:
        self._target = Target(store, rechecks=rechecks)
        self._blobs = self._target.store.blobs
        self._directories = self._target.store.directories
        self._size_rule = size_rule or store.size_rule
        self._account = account
        self.files = self._size = 0
        self._root: _File | _Directory | SymlinkNode | None = None
        self._open: list[_Directory] = []
        self._name = b""
        # The file that is being read: of a small one the pieces are kept, a large one is stored while it comes.
        self._file = _File(0, executable=False)
        self._pieces: list[bytes] = []
        self._large: PushStream[bytes, None] | None = None
        # Small files, which are gathered, and how many bytes they have.
        self._batch: list[bytes] = []
        self._batch_size = 0
        self._storing: deque[asyncio.Task[object]] = deque()
        # In the order of the NAR: directories, and large files, whose digests are not known before they are stored.
        self._work: deque[asyncio.Task[None] | _Directory] = deque()
        self._unfinished = 0
        self._sent: PushStream[Directory, Digest] | None = None
        self._held: list[Directory] | None = None
        """Directories of a small NAR, none of which was sent yet."""
        self._nar: StagedNar | None = None
        self._nar_hash = hashlib.sha256()
        self._hashing = BackgroundHash(self._nar_hash)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        running = [*self._storing, *([self._sent.task] if self._sent is not None else ())]
        for task in running:
            task.cancel()
        try:
            await asyncio.gather(*running, return_exceptions=True)
            await self._hashing.finish()
        finally:
            await self._target.close()

    async def read(self, nar: AsyncIterable[bytes], max_size: int | None = None, max_entries: int = MAX_ENTRIES) -> StagedNar:
        """Read the NAR to its end, and return its root node and its facts. Content of more than a little is written meanwhile.

        Raises: as `import_nar`.
        """
        reader = NarReader(max_entries=max_entries)
        size = 0
        async for large in nar:
            size += len(large)
            if max_size is not None and size > max_size:
                raise ExhaustedError(f"the NAR has more than {max_size} bytes, which are taken at most")
            await self._hashing.update(large)
            at = 0
            while at < len(large):
                # Contents go through as they are; what else there is takes time on the event loop.
                most = max(_AT_ONCE, reader.contents_left)
                for event in reader.feed(large[at : at + most]):
                    await self._take(event)
                at += most
                if size > _HELD:
                    await self._bound_unfinished()
        reader.finish()
        if size <= _HELD and not self._storing:
            self._held = [self._made(each) for each in self._work if isinstance(each, _Directory)]
        else:
            self._store_batch()
            while self._work:
                await self._do_next()
        await self._hashing.finish()
        assert self._root is not None
        self._nar = StagedNar(_node(self._root), NarFacts(size, self._nar_hash.digest()))
        return self._nar

    async def store(self, records: Mapping[bytes, bytes] = NO_RECORDS) -> None:
        """Store the content that was read, with the facts of its NAR. Only from then on is it in the store; in one with stages, all
        at once.

        `records` go where the store keeps links. They are not durable.
        """
        self._store_batch()
        if self._held:
            self._storing.append(asyncio.ensure_future(self._directories.put(_stream(self._held))))
        if self._sent is not None:
            await self._sent.end()
            self._storing.append(self._sent.task)
        await asyncio.gather(*self._storing)
        assert self._nar is not None
        if self._account is not None:
            self._account.count(self.files, self._size)
            self._account.add_new(self._target.new_bytes())
        await self._target.accept(self._nar, records)

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
                self.files += 1
                self._size += size
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
        while self._work and (self._is_ready(self._work[0]) or self._unfinished > MAX_UNFINISHED):
            await self._do_next()
        if self._unfinished > MAX_UNFINISHED:
            raise ExhaustedError(f"the names in a directory of the NAR, and those around it, take more than {MAX_UNFINISHED} bytes")

    async def _begin_large(self) -> None:
        await self._make_room()
        file = self._file

        async def put(pieces: AsyncIterator[bytes]) -> None:
            file.digest = await self._blobs.put(pieces)

        self._large = PushStream(put, room=2)
        self._work.append(self._large.task)
        self._storing.append(self._large.task)

    async def _end_file(self) -> None:
        if self._large is not None:
            await self._large.end()
            self._large = None
            return
        blob = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        self._pieces = []
        # Hashed here as well, so that directories need not wait for it to be stored.
        self._file.digest = Digest.of(blob)
        self._batch.append(blob)
        self._batch_size += len(blob)
        if self._batch_size >= _BATCH_BYTES or len(self._batch) >= _BATCH_FILES:
            await self._make_room()
            self._store_batch()

    def _store_batch(self) -> None:
        """Begin to store the small files that were gathered."""
        if self._batch:
            self._storing.append(asyncio.ensure_future(self._blobs.put_many(self._batch)))
            self._batch, self._batch_size = [], 0

    async def _make_room(self) -> None:
        while len(self._storing) >= _IN_FLIGHT:
            await self._storing[0]
            self._storing.popleft()

    @staticmethod
    def _is_ready(work: asyncio.Task[None] | _Directory) -> bool:
        return isinstance(work, _Directory) or work.done()

    async def _do_next(self) -> None:
        """Hand on the next directory, or wait for the large file before it."""
        work = self._work.popleft()
        if isinstance(work, _Directory):
            await self._send(work)
        else:
            await work

    async def _send(self, unfinished: _Directory) -> None:
        if len(unfinished.entries) <= _MADE_HERE:
            directory = self._made(unfinished)
        else:
            directory = await asyncio.to_thread(self._made, unfinished)
        unfinished.entries = {}
        self._unfinished -= unfinished.size
        await self._hand_on(directory)

    async def _hand_on(self, directory: Directory) -> None:
        if self._sent is None:
            self._sent = PushStream(self._directories.put, room=64)
        await self._sent.send(directory)

    def _made(self, unfinished: _Directory) -> Directory:
        directory = Directory({name: _node(child) for name, child in unfinished.entries.items()})
        unfinished.node = directory.node(self._size_rule)
        return directory


async def _stream(directories: Iterable[Directory]) -> AsyncIterator[Directory]:
    for directory in directories:
        yield directory


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
