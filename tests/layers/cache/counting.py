"""A far store that counts what it is asked, and can be away."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterable, AsyncIterator, Collection, Sequence
from dataclasses import replace

from tvix_store.errors import UnavailableError
from tvix_store.layers.passing import PassingPathInfos
from tvix_store.model.digest import Digest
from tvix_store.model.directory import Directory
from tvix_store.model.nodes import Node
from tvix_store.model.path_info import PathInfo
from tvix_store.model.store_path import StorePath
from tvix_store.model.trust import NOBODY, Trust
from tvix_store.services.blobs import BlobService, BlobStat
from tvix_store.services.directories import DirectoryService
from tvix_store.services.frames import Frame
from tvix_store.services.granular import Granular, StoredChunk
from tvix_store.services.path_infos import PathInfoService
from tvix_store.services.store import Store
from tvix_store.services.stored_tree import StoredTree


class Calls:
    """What was asked: how often each method was called, and the digests of chunks and blobs that were read."""

    def __init__(self) -> None:
        self.methods: Counter[str] = Counter()
        self.read: list[Digest] = []
        self.is_away = False
        self.left: int | None = None
        """Calls until far is away; None: it stays."""

    def call(self, method: str, digests: Sequence[Digest] = ()) -> None:
        self.methods[method] += 1
        if self.left is not None:
            self.left -= 1
            self.is_away = self.left < 0
        if self.is_away:
            raise UnavailableError("the far store is away")
        self.read += digests

    def forget(self) -> None:
        self.methods.clear()
        self.read.clear()


class CountingBlobs:
    def __init__(self, inner: BlobService, calls: Calls) -> None:
        self._inner = inner
        self._calls = calls

    async def stat(self, digest: Digest, *, chunks: bool = False) -> BlobStat | None:
        self._calls.call("stat")
        return await self._inner.stat(digest, chunks=chunks)

    async def missing(self, digests: Sequence[Digest]) -> set[Digest]:
        self._calls.call("missing")
        return await self._inner.missing(digests)

    async def read(self, digest: Digest, start: int = 0, stop: int | None = None) -> AsyncIterator[bytes]:
        self._calls.call("read", [digest])
        async for piece in self._inner.read(digest, start, stop):
            yield piece

    async def put(self, data: AsyncIterable[bytes]) -> Digest:
        self._calls.call("put")
        return await self._inner.put(data)

    async def put_many(self, blobs: Sequence[bytes]) -> list[Digest]:
        self._calls.call("put_many")
        return await self._inner.put_many(blobs)

    async def get_many(self, digests: Sequence[Digest]) -> list[bytes | None]:
        self._calls.call("get_many", digests)
        return await self._inner.get_many(digests)


class CountingDirectories:
    def __init__(self, inner: DirectoryService, calls: Calls) -> None:
        self._inner = inner
        self._calls = calls

    async def get(self, digest: Digest) -> Directory | None:
        self._calls.call("get directory", [digest])
        return await self._inner.get(digest)

    async def get_recursive(self, digest: Digest) -> AsyncIterator[Directory]:
        self._calls.call("get_recursive", [digest])
        async for directory in self._inner.get_recursive(digest):
            yield directory

    def tree(self, root: Node) -> StoredTree:
        return StoredTree(self, root)

    async def put(self, directories: AsyncIterable[Directory]) -> Digest:
        self._calls.call("put directories")
        return await self._inner.put(directories)


class CountingPathInfos(PassingPathInfos):
    def __init__(self, inner: PathInfoService, calls: Calls) -> None:
        super().__init__(inner)
        self._calls = calls

    async def get(self, output_hash: bytes) -> PathInfo | None:
        self._calls.call("get path info")
        return await self._inner.get(output_hash)

    async def get_many(self, output_hashes: Sequence[bytes]) -> dict[bytes, PathInfo]:
        self._calls.call("get path infos")
        return await self._inner.get_many(output_hashes)

    async def put(
        self, path_info: PathInfo, trust: Trust = NOBODY, *, requires: Collection[StorePath] = (), calculated: bool = False
    ) -> PathInfo:
        self._calls.call("put path info")
        return await self._inner.put(path_info, trust, requires=requires, calculated=calculated)


class CountingGranular:
    def __init__(self, inner: Granular, calls: Calls) -> None:
        self._inner = inner
        self._calls = calls
        self.missing_directories = inner.missing_directories
        self.missing_chunks = inner.missing_chunks
        self.put_directories = inner.put_directories
        self.put_chunks = inner.put_chunks
        self.list_chunks = inner.list_chunks
        self.assemble = inner.assemble

    async def get_directories(self, digests: Sequence[Digest]) -> list[Directory]:
        self._calls.call("get_directories", digests)
        return await self._inner.get_directories(digests)

    async def get_chunks(self, chunks: Sequence[Frame]) -> list[StoredChunk]:
        self._calls.call("get_chunks", [Digest(chunk.digest) for chunk in chunks])
        return await self._inner.get_chunks(chunks)


def counting(store: Store, calls: Calls) -> Store:
    """The store, which counts. Of its powers, it keeps `granular`."""
    counted = store.with_services(
        blobs=CountingBlobs(store.blobs, calls),
        directories=CountingDirectories(store.directories, calls),
        path_infos=CountingPathInfos(store.path_infos, calls),
        keep=["removal"],
    )
    return counted if store.granular is None else with_granular(counted, CountingGranular(store.granular, calls))


def with_granular(store: Store, granular: Granular) -> Store:
    return replace(store, granular=granular)
