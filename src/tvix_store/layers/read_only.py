"""Services that only read: every put is refused."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Collection, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from tvix_store.errors import DeniedError
from tvix_store.layers.passing import PassingPathInfos
from tvix_store.model.digest import Digest
from tvix_store.model.directory import Directory
from tvix_store.model.nodes import Node
from tvix_store.model.path_info import PathInfo
from tvix_store.model.store_path import StorePath
from tvix_store.model.trust import NOBODY, Trust
from tvix_store.services.blobs import BlobService, BlobStat, Chunk
from tvix_store.services.deltas import Deltas
from tvix_store.services.directories import DirectoryService, DirectoryTree
from tvix_store.services.frames import Frame
from tvix_store.services.granular import Granular, StoredChunk
from tvix_store.services.offer import Offer
from tvix_store.services.path_infos import PathInfoService
from tvix_store.services.record_kinds import kind_of
from tvix_store.services.records import Changes, RecordService

S = TypeVar("S", bound=Offer)
_READ_ONLY = "this store is read-only"


def read_only(store: S, refusal: str = _READ_ONLY) -> S:
    """The store, or offer, taking nothing. It may remember results that it computes from its content: `records` takes these alone.

    Whoever puts something hears the `refusal`.
    """
    if store.read_only:
        return store
    reading = store.with_services(
        blobs=None if store.blobs is None else ReadOnlyBlobs(store.blobs, refusal),
        directories=None if store.directories is None else ReadOnlyDirectories(store.directories, refusal),
        path_infos=None if store.path_infos is None else ReadOnlyPathInfos(store.path_infos, refusal),
        records=None if store.records is None else ReadOnlyRecords(store.records, refusal),
        keep=("frames", "named_paths", "arrivals", "statistics"),
    )
    granular = None if store.granular is None else ReadOnlyGranular(store.granular, refusal)
    deltas = None if store.deltas is None else ReadOnlyDeltas(store.deltas, refusal)
    return replace(reading, granular=granular, deltas=deltas, read_only=True)


class ReadOnlyBlobs:
    """A BlobService whose puts raise DeniedError."""

    def __init__(self, inner: BlobService, refusal: str = _READ_ONLY) -> None:
        self._inner = inner
        self._refusal = refusal

    async def stat(self, digest: Digest, *, chunks: bool = False) -> BlobStat | None:
        return await self._inner.stat(digest, chunks=chunks)

    async def missing(self, digests: Sequence[Digest]) -> set[Digest]:
        return await self._inner.missing(digests)

    def read(self, digest: Digest, start: int = 0, stop: int | None = None) -> AsyncIterator[bytes]:
        return self._inner.read(digest, start, stop)

    async def put(self, data: AsyncIterable[bytes]) -> Digest:
        raise DeniedError(self._refusal)

    async def put_many(self, blobs: Sequence[bytes]) -> list[Digest]:
        raise DeniedError(self._refusal)

    async def get_many(self, digests: Sequence[Digest]) -> list[bytes | None]:
        return await self._inner.get_many(digests)


class ReadOnlyDirectories:
    """A DirectoryService whose put raises DeniedError."""

    def __init__(self, inner: DirectoryService, refusal: str = _READ_ONLY) -> None:
        self._inner = inner
        self._refusal = refusal

    async def get(self, digest: Digest) -> Directory | None:
        return await self._inner.get(digest)

    def get_recursive(self, digest: Digest) -> AsyncIterator[Directory]:
        return self._inner.get_recursive(digest)

    def tree(self, root: Node) -> DirectoryTree:
        return self._inner.tree(root)

    async def put(self, directories: AsyncIterable[Directory]) -> Digest:
        raise DeniedError(self._refusal)


class ReadOnlyGranular:
    """A Granular whose puts raise DeniedError."""

    def __init__(self, inner: Granular, refusal: str = _READ_ONLY) -> None:
        self._inner = inner
        self._refusal = refusal

    async def missing_directories(self, digests: Sequence[Digest]) -> set[Digest]:
        return await self._inner.missing_directories(digests)

    async def get_directories(self, digests: Sequence[Digest]) -> list[Directory]:
        return await self._inner.get_directories(digests)

    async def put_directories(self, directories: Sequence[Directory]) -> None:
        raise DeniedError(self._refusal)

    async def list_chunks(self, blobs: Sequence[Chunk]) -> list[Sequence[Frame]]:
        return await self._inner.list_chunks(blobs)

    async def get_chunks(self, chunks: Sequence[Frame]) -> list[StoredChunk]:
        return await self._inner.get_chunks(chunks)

    async def missing_chunks(self, digests: Sequence[Digest]) -> set[Digest]:
        return await self._inner.missing_chunks(digests)

    async def put_chunks(self, chunks: Sequence[StoredChunk]) -> None:
        raise DeniedError(self._refusal)

    async def assemble(self, digest: Digest, chunks: Sequence[Chunk]) -> None:
        raise DeniedError(self._refusal)


class ReadOnlyDeltas:
    """Deltas that are made, and not applied."""

    def __init__(self, inner: Deltas, refusal: str = _READ_ONLY) -> None:
        self._inner = inner
        self._refusal = refusal

    async def make(self, base: Digest, target: Chunk, most: int) -> bytes | None:
        return await self._inner.make(base, target, most)

    async def apply(self, base: Digest, target: Chunk, delta: bytes) -> None:
        raise DeniedError(self._refusal)


class ReadOnlyPathInfos(PassingPathInfos):
    """A PathInfoService whose put raises DeniedError."""

    def __init__(self, inner: PathInfoService, refusal: str = _READ_ONLY) -> None:
        super().__init__(inner)
        self._refusal = refusal

    async def put(
        self, path_info: PathInfo, trust: Trust = NOBODY, *, requires: Collection[StorePath] = (), calculated: bool = False
    ) -> PathInfo:
        raise DeniedError(self._refusal)


class ReadOnlyRecords:
    """A RecordService whose puts raise DeniedError, but for records that follow from content which the store has."""

    def __init__(self, inner: RecordService, refusal: str = _READ_ONLY) -> None:
        self._inner = inner
        self._refusal = refusal

    async def get(self, key: bytes) -> bytes | None:
        return await self._inner.get(key)

    async def put(self, records: Mapping[bytes, bytes], *, durable: bool = True) -> None:
        if not all(kind is not None and kind.follows for kind in map(kind_of, records)):
            raise DeniedError(self._refusal)
        await self._inner.put(records, durable=durable)

    async def delete(self, keys: Collection[bytes]) -> None:
        raise DeniedError(self._refusal)

    async def exchange(self, changes: Changes) -> int:
        raise DeniedError(self._refusal)

    def list(self, prefix: bytes = b"") -> AsyncIterator[tuple[bytes, bytes]]:
        return self._inner.list(prefix)
