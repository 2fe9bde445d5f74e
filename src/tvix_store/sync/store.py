"""The store and its services, synchronously."""

from __future__ import annotations

from collections.abc import Iterable
from queue import SimpleQueue
from types import TracebackType
from typing import Self, TypeAlias

from tvix_store import library
from tvix_store.library.data import BinaryFile
from tvix_store.model.digest import Digest
from tvix_store.model.directory import Directory
from tvix_store.model.nodes import Node
from tvix_store.services.directories import DirectoryTree
from tvix_store.services.nar import NarService
from tvix_store.services.statistics import Statistics
from tvix_store.sync.facade import Call, Facade, Stream
from tvix_store.sync.loop_thread import Jobs, LoopThread

Data: TypeAlias = bytes | bytearray | memoryview | BinaryFile | Iterable[bytes]
"""Bytes, an open file, or pieces from an iterable."""


class Blobs(Facade[library.Blobs]):
    """As `tvix_store.library.Blobs`."""

    stat = Call(library.Blobs.stat)
    missing = Call(library.Blobs.missing)
    read = Stream(library.Blobs.read)
    put_many = Call(library.Blobs.put_many)
    get_many = Call(library.Blobs.get_many)

    def put(self, data: Data) -> Digest:
        """As `tvix_store.library.Blobs.put`. An iterable is walked in this thread, while the blob is stored."""
        jobs: Jobs = SimpleQueue()
        return self.loop.run(self.inner.put(pulled(data, self.loop, jobs)), jobs)


class Directories(Facade[library.Directories]):
    """As `tvix_store.library.Directories`."""

    get = Call(library.Directories.get)
    get_recursive = Stream(library.Directories.get_recursive)

    def tree(self, root: Node) -> DirectoryTree:
        """The handle of a tree, for `render_nar`, `render_tar` and `export_tree`."""
        return self.inner.tree(root)

    def put(self, directories: Iterable[Directory]) -> Digest:
        """As `tvix_store.library.Directories.put`. The iterable is walked in this thread, while directories are stored."""
        jobs: Jobs = SimpleQueue()
        return self.loop.run(self.inner.put(self.loop.pulled(directories, jobs)), jobs)


class PathInfos(Facade[library.PathInfos]):
    """As `tvix_store.library.PathInfos`."""

    get = Call(library.PathInfos.get)
    get_many = Call(library.PathInfos.get_many)
    existing = Call(library.PathInfos.existing)
    put = Call(library.PathInfos.put)
    list = Stream(library.PathInfos.list)


class Nars(Facade[NarService]):
    """As `tvix_store.NarService`."""

    calculate = Call(NarService.calculate)


class Counts(Facade[Statistics]):
    """As `tvix_store.services.Statistics`."""

    stats = Call(Statistics.stats)


class Store(Facade[library.Store]):
    """A store that is open, for synchronous use, from any thread. `Store.blobs` and its other services are synchronous too.

    Use as `with store:` or call `close` when done.
    """

    def __init__(self, inner: library.Store, loop: LoopThread) -> None:
        super().__init__(inner, loop)
        self.blobs = Blobs(inner.blobs, loop)
        self.directories = Directories(inner.directories, loop)
        self.path_infos = PathInfos(inner.path_infos, loop)
        self.nar = Nars(inner.nar, loop)
        self.statistics = None if inner.statistics is None else Counts(inner.statistics, loop)
        self.name = inner.name
        self.store_dir = inner.store_dir
        self.read_only = inner.read_only

    def close(self) -> None:
        """Close the store. Iterators that still read from it end with ClosedError."""
        life = self.inner.life
        ended = False

        async def end() -> None:
            nonlocal ended
            ended = life.is_open  # of several threads that close it, one ends it
            await life.end()

        if life.is_open:
            try:
                self.loop.run(end())
            finally:
                if ended:
                    self.loop.leave()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def pulled(data: Data, loop: LoopThread, jobs: Jobs) -> library.Data:
    """The data, for a call on `loop`. Of an iterable, each piece is taken in the thread that waits for the call."""
    if isinstance(data, (bytes, bytearray, memoryview, str, BinaryFile)) or not isinstance(data, Iterable):
        return data
    return loop.pulled(data, jobs)
