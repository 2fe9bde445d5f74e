"""import_tree: put a tree of a file system into a store, as `nix-store --add` would.

One thread reads the files in the order of the NAR. What it reads goes two ways at once: into the NAR's SHA-256, which
another thread computes, and into the blob service, in batches of small files and streams of large ones. The directories
follow, leaves to root, then the path info, which makes it all durable. A crash on the way leaves content that no path refers to.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tvix_store.model.content_address import ContentAddress, Method
from tvix_store.model.digest import EMPTY, Digest
from tvix_store.model.directory import Directory, SizeRule
from tvix_store.model.nix_hash import NixHash
from tvix_store.model.nodes import Node
from tvix_store.model.path_info import NarFacts, PathInfo
from tvix_store.model.store_path import StorePath, check_store_path_name, fixed_output_path, flat_output_path
from tvix_store.operations.read_tree import Piece, SmallFiles, TreeReader
from tvix_store.services.store import Store

_BATCHES_IN_FLIGHT = 4
"""Batches (4 MiB) or large files that are being stored at a time; as many may wait to be hashed, and as many are read ahead."""

Progress = Callable[[int, int], None]
"""Called with how many more files, and bytes of them, were read."""


@dataclass(frozen=True, slots=True)
class Imported:
    """What became of a tree: its root node, what is true of its NAR, its store path, and the path info if one was put."""

    node: Node
    nar: NarFacts
    store_path: StorePath
    path_info: PathInfo | None


async def import_tree(
    store: Store,
    path: Path,
    *,
    name: str | None = None,
    flat: bool = False,
    path_info: bool = True,
    size_rule: SizeRule | None = None,
    progress: Progress | None = None,
) -> Imported:
    """Import the directory, regular file or symlink at `path`.

    `name` is the store path's (default: the file name). `flat` addresses a regular file by the SHA-256 of its contents alone.
    `path_info=False` stores content only. `size_rule` overrides the store's.

    Raises:
        InvalidError: something in the tree cannot be stored, or changed while it was read; the name is not allowed.
        DeniedError: something in the tree may not be read.
        ExhaustedError, UnavailableError: the store cannot take it.
    """
    name = check_store_path_name(name or os.path.basename(os.path.abspath(path)))
    reader = TreeReader(path, flat=flat)
    contents = _Contents(store, reader, progress)
    try:
        await contents.store_all()
    finally:
        await contents.stop()
    nar = contents.nar
    node = await _directories(store, reader, contents.digests, size_rule or store.size_rule)
    if flat:
        ca = ContentAddress(Method.FLAT, NixHash("sha256", contents.file_sha256))
        store_path = flat_output_path(name, ca.hash, store.store_dir)
    else:
        ca = ContentAddress(Method.NAR, NixHash("sha256", nar.sha256))
        store_path = fixed_output_path(name, nar.sha256, store_dir=store.store_dir)
    await store.nar.record(node, nar)
    stored = await store.path_infos.put(PathInfo(store_path, node, nar, ca=ca)) if path_info else None
    return Imported(node, nar, store_path, stored)


async def _directories(store: Store, reader: TreeReader, digests: list[Digest], rule: SizeRule) -> Node:
    async def leaves_to_root() -> AsyncIterator[Directory]:
        for directory in reader.directories(digests, rule):
            yield directory

    if reader.is_directory:
        await store.directories.put(leaves_to_root())
    return reader.root(digests)


class _Contents:
    """The contents of a tree on their way into the store."""

    def __init__(self, store: Store, reader: TreeReader, progress: Progress | None) -> None:
        self.digests: list[Digest] = []
        self._store = store
        self._reader = reader
        self._progress = progress
        self._nar_hash = hashlib.sha256()
        self._nar_size = 0
        self._file_hash = hashlib.sha256()
        self._reading = ThreadPoolExecutor(1, thread_name_prefix="tvix-store-reading")
        self._hashing = ThreadPoolExecutor(1, thread_name_prefix="tvix-store-hashing")
        self._unhashed: deque[asyncio.Future[None]] = deque()
        self._storing: deque[asyncio.Task[None]] = deque()
        self._pieces: asyncio.Queue[bytes | None] | None = None
        """Of the large file that is being read."""

    @property
    def nar(self) -> NarFacts:
        return NarFacts(self._nar_size, self._nar_hash.digest())

    @property
    def file_sha256(self) -> bytes:
        """Of the contents of a single file."""
        return self._file_hash.digest()

    async def store_all(self) -> None:
        loop = asyncio.get_running_loop()
        batches = self._reader.batches()
        ahead = loop.run_in_executor(self._reading, next, batches, None)
        while (batch := await ahead) is not None:
            ahead = loop.run_in_executor(self._reading, next, batches, None)
            self._unhashed.append(loop.run_in_executor(self._hashing, self._hash, batch))
            if len(self._unhashed) > _BATCHES_IN_FLIGHT:
                await self._unhashed.popleft()
            if isinstance(batch, Piece):
                await self._store_piece(batch)
            elif batch.blobs:
                await self._start(self._store_small(batch))
                self._report(len(batch.blobs), sum(map(len, batch.blobs)))
        for unfinished in (*self._unhashed, *self._storing):
            await unfinished

    async def stop(self) -> None:
        """Leave nothing running, whatever happened."""
        for task in self._storing:
            task.cancel()
        await asyncio.gather(*self._storing, return_exceptions=True)
        self._reading.shutdown(cancel_futures=True)
        self._hashing.shutdown(cancel_futures=True)

    async def _start(self, work: Coroutine[None, None, None]) -> None:
        """Go on with `work` beside the reading, when few others are at it."""
        while len(self._storing) >= _BATCHES_IN_FLIGHT:
            await self._storing[0]
            self._storing.popleft()
        self._storing.append(asyncio.ensure_future(work))

    async def _store_small(self, batch: SmallFiles) -> None:
        self._set(batch.first, await self._store.blobs.put_many(batch.blobs))

    async def _store_piece(self, piece: Piece) -> None:
        if self._pieces is None:
            self._pieces = asyncio.Queue(_BATCHES_IN_FLIGHT)
            await self._start(self._store_large(piece.file, self._pieces))
        store = self._storing[-1]
        await _put_unless_done(self._pieces, piece.data, store)
        self._report(int(piece.last), len(piece.data))
        if piece.last:
            await _put_unless_done(self._pieces, None, store)
            self._pieces = None

    async def _store_large(self, file: int, pieces: asyncio.Queue[bytes | None]) -> None:
        async def data() -> AsyncIterator[bytes]:
            while (piece := await pieces.get()) is not None:
                yield piece

        self._set(file, [await self._store.blobs.put(data())])

    def _set(self, first: int, digests: list[Digest]) -> None:
        missing = first + len(digests) - len(self.digests)
        if missing > 0:
            self.digests += [EMPTY] * missing
        self.digests[first : first + len(digests)] = digests

    def _hash(self, batch: SmallFiles | Piece) -> None:
        nar = b"".join(batch.nar)
        self._nar_size += len(nar)
        self._nar_hash.update(nar)
        if self._reader.flat:
            for data in (batch.data,) if isinstance(batch, Piece) else batch.blobs:
                self._file_hash.update(data)

    def _report(self, files: int, size: int) -> None:
        if self._progress is not None:
            self._progress(files, size)


async def _put_unless_done(queue: asyncio.Queue[bytes | None], item: bytes | None, reader: asyncio.Task[None]) -> None:
    """Put `item`, but do not wait for room where nobody reads any more: the reader's error is raised instead."""
    while queue.full():
        if reader.done():
            await reader
        await asyncio.wait((reader,), timeout=0.01)
    queue.put_nowait(item)
