"""import_content: put the content of a tree of a file system into a store, and return the facts of its NAR.

One thread reads the files in the order of the NAR. Each piece goes two ways at once: into the NAR's SHA-256, in another thread, and
into the blob service. Small files go in batches, large ones as streams. The directories follow, leaves to root. In a store with
stages, all of it goes to a stage: an import that does not come to its end leaves nothing.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from blake3 import blake3

from tvix_store.model.digest import EMPTY, Digest
from tvix_store.model.directory import Directory, SizeRule
from tvix_store.model.nodes import Node
from tvix_store.model.path_info import NarFacts
from tvix_store.operations.ingest.account import ImportAccount
from tvix_store.operations.ingest.files_cache import FilesCache
from tvix_store.operations.ingest.import_threads import ImportThreads
from tvix_store.operations.ingest.scan import ChangedError, Event, KnownFiles, LargeFile, TreeReader, WholeFiles
from tvix_store.operations.ingest.target import Target
from tvix_store.services.blobs import SMALL_BLOB
from tvix_store.services.staging import StagedNar
from tvix_store.services.store import Store

_BATCHES_IN_FLIGHT = 4
"""Batches (4 MiB) or large files that are being stored at a time; as many may wait to be hashed, and as many are read ahead."""

T = TypeVar("T")
Progress = Callable[[int, int], None]
"""Called with how many more files, and bytes of them, were read; with negative numbers where they must be read again."""


@dataclass(frozen=True, slots=True)
class Content:
    """An imported tree: its root node, the facts of its NAR, and its depth (nodes inside each other). A file that was read as
    `flat` has its SHA-256."""

    node: Node
    nar: NarFacts
    depth: int
    file_sha256: bytes


async def import_content(
    store: Store,
    path: Path,
    *,
    flat: bool = False,
    size_rule: SizeRule | None = None,
    check_nar: Callable[[NarFacts], None] | None = None,
    threads: ImportThreads | None = None,
    cache: FilesCache | None = None,
    progress: Progress | None = None,
    account: ImportAccount | None = None,
) -> Content:
    """Store the directory, regular file or symlink at `path`, and make sure of its NAR.

    `flat` takes a regular file alone, and none as executable. `size_rule` overrides the store's. With `check_nar` the NAR is always
    hashed here, and what that raises refuses the content; otherwise the store is asked where it probably knows. `threads` are the
    import's own unless they are given. Files that `cache` knows, and the store has, are not read; it learns what there is now.
    A tree that changes while it is read is read once more. `account` takes what was done.

    Raises:
        InvalidError: something in the tree cannot be stored, or changed while it was read, both times.
        DeniedError: something in the tree may not be read.
        ExhaustedError, UnavailableError: the store cannot take it.
    """
    used = threads or ImportThreads()
    known = None if check_nar or flat else cache
    counted_files = counted_bytes = 0
    read_again = False

    def count(files: int, size: int) -> None:
        nonlocal counted_files, counted_bytes
        counted_files, counted_bytes = counted_files + files, counted_bytes + size
        if account is not None:
            account.count(files, size)
        if progress is not None:
            progress(files, size)

    async def stored() -> tuple[TreeReader, _Contents, Node]:
        target = Target(store)
        try:
            reader = TreeReader(path, flat=flat, cache=known)
            contents = _Contents(store, target.store, reader, used, check_nar is not None, count)
            await contents.store_all()
            if check_nar is not None and contents.nar is not None:
                check_nar(contents.nar)
            node = await _directories(target.store, reader, contents.digests, size_rule or store.size_rule)
            if account is not None:
                account.add_new(target.new_bytes())
            await target.accept(None if contents.nar is None else StagedNar(node, contents.nar))
            return reader, contents, node
        finally:
            await target.close()

    try:
        while True:
            try:
                reader, contents, node = await stored()
                break
            except _LackingError:
                assert known is not None
                known.forget()
            except ChangedError:
                if read_again:
                    raise
                read_again = True
            count(-counted_files, -counted_bytes)
    finally:
        if threads is None:
            used.stop()
    nar = contents.nar or await store.nar.calculate(node)
    if known is not None and reader.keys:
        known.save(reader.keys, contents.digests)
    return Content(node, nar, reader.depth, contents.file_sha256)


class _LackingError(Exception):
    """The store lacks what the cache knows: it is another store, or something was found damaged in it."""


async def _directories(store: Store, reader: TreeReader, digests: list[Digest], rule: SizeRule) -> Node:
    async def leaves_to_root() -> AsyncIterator[Directory]:
        for directory in reader.tree.finished(digests, rule):
            yield directory

    if reader.tree.is_directory:
        await store.directories.put(leaves_to_root())
    return reader.tree.root_node(digests)


class _Contents:
    """The contents of a tree on their way into `stage`, from which `store` gets them."""

    def __init__(
        self, store: Store, stage: Store, reader: TreeReader, threads: ImportThreads, hash_nar: bool, progress: Progress
    ) -> None:
        self.digests: list[Digest] = []
        self._store = store
        self._stage = stage
        self._reader = reader
        self._progress = progress
        self._nar_hash = hashlib.sha256()
        self._nar_size = 0
        self._nar: list[bytes] | None = None if reader.looks_up else []
        """Bytes of the NAR that are not given to the hash yet; None when the hash is not wanted, or not all is read."""
        self._decided = hash_nar or reader.looks_up
        self._ask = reader.looks_up or store.known_nars is None
        """Whether to ask for a blob before it is put: the tree is known, or the store is far away."""
        self._file_hash = hashlib.sha256()
        self._threads = threads
        self._unhashed: deque[asyncio.Future[None]] = deque()
        self._storing: deque[asyncio.Task[None]] = deque()

    @property
    def nar(self) -> NarFacts | None:
        """What is true of the tree's NAR, unless the store probably knows it."""
        return None if self._nar is None else NarFacts(self._nar_size, self._nar_hash.digest())

    @property
    def file_sha256(self) -> bytes:
        """Of the contents of a single file."""
        return self._file_hash.digest()

    async def store_all(self) -> None:
        """Store the contents of all files. When this ends, in whatever way, nothing goes on but what the threads have begun."""
        try:
            async for event in self._events():
                match event:
                    case WholeFiles():
                        await self._whole_files(event)
                    case LargeFile():
                        await self._large_file(event)
                    case KnownFiles():
                        await self._known_files(event)
            self._decided = True  # a tree without files
            await self._hash([])
            for unfinished in (*self._unhashed, *self._storing):
                await unfinished
        finally:
            for task in self._storing:
                task.cancel()
            await asyncio.gather(*self._storing, return_exceptions=True)

    async def _events(self) -> AsyncIterator[Event]:
        """The events of the reader, which reads ahead, but not past a large file, which is open only until then."""
        events = self._reader.events()
        ahead = asyncio.ensure_future(self._read(next, events, None))
        try:
            while (event := await ahead) is not None:
                if isinstance(event, LargeFile):
                    yield event
                ahead = asyncio.ensure_future(self._read(next, events, None))
                if not isinstance(event, LargeFile):
                    yield event
        finally:
            ahead.cancel()
            await asyncio.gather(ahead, return_exceptions=True)

    async def _known_files(self, files: KnownFiles) -> None:
        assert self._nar is None, "a NAR was to be hashed of which some files are not read"
        if await self._store.blobs.missing(files.digests):
            raise _LackingError
        self._set(files.numbers, files.digests)
        self._progress(len(files.numbers), files.size)

    async def _whole_files(self, files: WholeFiles) -> None:
        if files.blobs and not self._decided:
            self._decide(found=not await self._store.blobs.missing([Digest.of(blob) for blob in files.blobs]))
        await self._hash(files.nar)
        if self._reader.flat:
            self._file_hash.update(b"".join(files.blobs))
        if files.blobs:
            await self._start(self._put_whole(files))
            self._progress(len(files.blobs), sum(map(len, files.blobs)))

    async def _large_file(self, file: LargeFile) -> None:
        digest = await self._known_digest(file)
        self._decide(found=digest is not None)
        if digest:
            self._set([file.number], [digest])
            if self._nar is None and not self._reader.flat:
                self._progress(1, file.size)
                return
        pieces: asyncio.Queue[bytes | None] = asyncio.Queue(_BATCHES_IN_FLIGHT)
        put = None if digest else await self._start(self._put_large(file, pieces))
        hasher = blake3()
        async for data in self._in_reading_thread(file.pieces()):
            await self._hash([data])
            if digest:
                hasher.update(data)
            if self._reader.flat:
                self._file_hash.update(data)
            if put is not None:
                await _put_unless_done(pieces, data, put)
            self._progress(0, len(data))
        if put is not None:
            await _put_unless_done(pieces, None, put)
        if digest and hasher.digest() != digest.raw:
            raise file.changed()
        self._progress(1, 0)

    async def _known_digest(self, file: LargeFile) -> Digest | None:
        """The digest of a file that the store has, else None.

        Its first chunk is asked for before the whole file is read and hashed: most unknown files begin with an unknown chunk.
        """
        if await self._store.blobs.missing([await self._read(file.first_chunk)]):
            return None
        digest = await self._read(file.digest)
        return None if await self._store.blobs.missing([digest]) else digest

    def _decide(self, *, found: bool) -> None:
        """Whether to hash the NAR, once, by whether the first contents were found in the store.

        A tree that begins with known contents was most likely imported before, so the store knows its NAR. If not, the store
        computes it. That saves the better half of the work of importing a tree again.
        """
        if not self._decided:
            self._decided = True
            self._ask = found or self._store.known_nars is None
            if self._ask:
                self._nar = None

    async def _start(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        """Go on with `work` beside the reading, when few others are at it."""
        while len(self._storing) >= _BATCHES_IN_FLIGHT:
            await self._storing[0]
            self._storing.popleft()
        task = asyncio.ensure_future(work)
        self._storing.append(task)
        return task

    async def _put_whole(self, files: WholeFiles) -> None:
        """Beside each other, so that they wait for the same commits."""
        small = [n for n, blob in enumerate(files.blobs) if len(blob) <= SMALL_BLOB]
        others = [n for n, blob in enumerate(files.blobs) if len(blob) > SMALL_BLOB]
        try:
            async with asyncio.TaskGroup() as group:
                many = group.create_task(self._stage.blobs.put_many([files.blobs[n] for n in small]))
                single = [group.create_task(self._put_medium(files.blobs[n])) for n in others]
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None  # one tells enough, and is what callers know
        digests = [EMPTY] * len(files.blobs)
        for n, digest in zip(small, many.result(), strict=True):
            digests[n] = digest
        for n, put in zip(others, single, strict=True):
            digests[n] = put.result()
        self._set(files.numbers, digests)

    async def _put_medium(self, blob: bytes) -> Digest:
        async def data() -> AsyncIterator[bytes]:
            yield blob

        if self._ask:
            digest = await asyncio.to_thread(Digest.of, blob)
            if not await self._store.blobs.missing([digest]):
                return digest
        return await self._stage.blobs.put(data())

    async def _put_large(self, file: LargeFile, pieces: asyncio.Queue[bytes | None]) -> None:
        async def data() -> AsyncIterator[bytes]:
            while (piece := await pieces.get()) is not None:
                yield piece

        if self._stage.lone_files is None or self._reader.tree.is_directory:
            digest = await self._stage.blobs.put(data())
        else:
            digest = await self._stage.lone_files.put(data(), file.size, executable=file.executable)
        self._set([file.number], [digest])

    def _set(self, numbers: Sequence[int], digests: Sequence[Digest]) -> None:
        missing = numbers[-1] + 1 - len(self.digests) if numbers else 0
        if missing > 0:
            self.digests += [EMPTY] * missing
        for number, digest in zip(numbers, digests, strict=True):
            self.digests[number] = digest

    async def _hash(self, nar: list[bytes]) -> None:
        """Let a thread hash the next bytes of the NAR, when it is known that they must be."""
        if self._nar is None:
            return
        self._nar += nar
        if self._decided and self._nar:
            joined, self._nar = b"".join(self._nar), []
            self._nar_size += len(joined)
            loop = asyncio.get_running_loop()
            self._unhashed.append(loop.run_in_executor(self._threads.hashing, self._nar_hash.update, joined))
            if len(self._unhashed) > _BATCHES_IN_FLIGHT:
                await self._unhashed.popleft()

    async def _read(self, call: Callable[..., T], *arguments: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads.reading, call, *arguments)

    async def _in_reading_thread(self, items: Iterator[T]) -> AsyncIterator[T]:
        while (item := await self._read(next, items, None)) is not None:
            yield item


async def _put_unless_done(queue: asyncio.Queue[bytes | None], item: bytes | None, reader: asyncio.Task[None]) -> None:
    """Put `item`, but do not wait for room where nobody reads any more: the reader's error is raised instead."""
    while queue.full():
        if reader.done():
            await reader
        await asyncio.wait((reader,), timeout=0.01)
    queue.put_nowait(item)
