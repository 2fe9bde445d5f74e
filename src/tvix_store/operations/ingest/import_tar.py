"""import_tar: put the tree in a tar archive into the blobs and directories of a store.

One thread reads the archive. Small files are gathered into batches, large ones streamed, and both are stored beside. The members
of a tar come in any order, so directories follow at its end. In a store with stages, all of it goes to a stage: an archive that is
damaged, hostile or cut short leaves nothing.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

from tvix_store.concurrency.from_thread import from_thread
from tvix_store.concurrency.push_stream import PushStream
from tvix_store.model.digest import EMPTY, Digest
from tvix_store.model.directory import Directory, SizeRule
from tvix_store.model.nodes import Node
from tvix_store.model.path_info import NarFacts
from tvix_store.operations.ingest.account import ImportAccount
from tvix_store.operations.ingest.import_content import Progress
from tvix_store.operations.ingest.tar_reader import MAX_HEADERS, Kind, TarReader
from tvix_store.operations.ingest.tar_tree import MAX_ENTRIES, TarTree
from tvix_store.operations.ingest.target import Target
from tvix_store.operations.ingest.tree_builder import UnfinishedTree
from tvix_store.services.blobs import SMALL_BLOB
from tvix_store.services.store import Store

_BATCH_BYTES = 2 << 20
_BATCH_FILES = 1024
_IN_FLIGHT = 3
"""Batches, or large files, that are being stored while the archive is read on."""


@dataclass(frozen=True, slots=True)
class TarContent:
    """The root node of an archive, what is true of its NAR, and how many nodes are inside each other at most."""

    node: Node
    nar: NarFacts
    depth: int


@dataclass(frozen=True, slots=True)
class _Small:
    """Whole files: `blobs[n]` is the content of file number `numbers[n]`."""

    numbers: list[int]
    blobs: list[bytes]


@dataclass(frozen=True, slots=True)
class _Large:
    """File number `number`, whose contents are next in the archive."""

    number: int


async def import_tar(
    store: Store,
    pieces: Iterator[bytes],
    *,
    size_rule: SizeRule | None = None,
    max_entries: int = MAX_ENTRIES,
    progress: Progress | None = None,
    account: ImportAccount | None = None,
) -> TarContent:
    """Store the tree of an archive, whose bytes `pieces` gives out in a thread. Memory is bounded, but for names (see `tar_tree`).

    Owners, times and other attributes are passed over. A hard link is a file of its own with the same content. `account` takes
    what was done.

    Raises:
        InvalidError: it is no archive, or damaged; an entry has no place in a store path. The error names the byte or the entry.
        ExhaustedError: it is too large, or the store is full.
    """
    target = Target(store)
    account = account or ImportAccount()
    work = _Import(target.store, pieces, max_entries, progress, account)
    try:
        tree, digests = await work.run()
        if tree.is_directory:
            await target.store.directories.put(_directories(tree, digests, size_rule or store.size_rule))
        node = tree.root_node(digests)
        account.add_new(target.new_bytes())
        await target.accept()
    finally:
        await work.stop()
        await target.close()
    return TarContent(node, await store.nar.calculate(node), work.tree.depth)


async def _directories(tree: UnfinishedTree, digests: list[Digest], rule: SizeRule) -> AsyncIterator[Directory]:
    for directory in tree.finished(digests, rule):
        yield directory


class _Import:
    def __init__(
        self, stage: Store, pieces: Iterator[bytes], max_entries: int, progress: Progress | None, account: ImportAccount
    ) -> None:
        self.tree = TarTree(max_entries=max_entries)
        self._blobs = stage.blobs
        self._reader = TarReader(pieces, max_headers=MAX_HEADERS)
        self._progress = progress
        self._account = account
        self._digests: list[Digest] = []
        self._storing: deque[asyncio.Task[None]] = deque()

    async def run(self) -> tuple[UnfinishedTree, list[Digest]]:
        """The tree of the archive, and the digests of its files, all of which were put."""
        async for event in from_thread(self._events()):
            while len(self._storing) >= _IN_FLIGHT:
                await self._storing[0]
                self._storing.popleft()
            if isinstance(event, _Small):
                self._storing.append(asyncio.ensure_future(self._put_small(event)))
            else:
                await self._put_large(event.number)
        for task in self._storing:
            await task
        return await asyncio.to_thread(self.tree.finish, self._digests), self._digests

    async def stop(self) -> None:
        """Leave nothing running."""
        for task in self._storing:
            task.cancel()
        await asyncio.gather(*self._storing, return_exceptions=True)

    def _events(self) -> Iterator[_Small | _Large]:
        """Read the archive in a thread. The contents of a large file are read before the next event."""
        numbers: list[int] = []
        blobs: list[bytes] = []
        size = 0
        for member in self._reader.members():
            number = self.tree.add(member)
            if number is None:
                continue
            if member.kind is Kind.FILE and member.size > SMALL_BLOB:
                yield _Large(number)
                continue
            numbers.append(number)
            blobs.append(b"".join(self._reader.contents()))
            size += member.size
            if size >= _BATCH_BYTES or len(blobs) >= _BATCH_FILES:
                yield _Small(numbers, blobs)
                numbers, blobs, size = [], [], 0
        if blobs:
            yield _Small(numbers, blobs)

    async def _put_small(self, files: _Small) -> None:
        for number, digest in zip(files.numbers, await self._blobs.put_many(files.blobs), strict=True):
            self._set(number, digest)
        self._count(len(files.blobs), sum(map(len, files.blobs)))

    async def _put_large(self, number: int) -> None:
        async def put(pieces: AsyncIterator[bytes]) -> None:
            self._set(number, await self._blobs.put(pieces))

        stream = PushStream(put, room=2)
        self._storing.append(stream.task)
        async for piece in from_thread(self._reader.contents()):
            await stream.send(piece)
            self._count(0, len(piece))
        await stream.end()
        self._count(1, 0)

    def _set(self, number: int, digest: Digest) -> None:
        self._digests += [EMPTY] * (number + 1 - len(self._digests))
        self._digests[number] = digest

    def _count(self, files: int, size: int) -> None:
        self._account.count(files, size)
        if self._progress is not None:
            self._progress(files, size)
