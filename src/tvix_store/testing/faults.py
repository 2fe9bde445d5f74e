"""Services that go wrong on purpose: what they pass on fails, is cut short, damaged or late.

blobs = FaultyBlobs(store.blobs, failing(UnavailableError("gone"), after=3))
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import suppress
from typing import TypeAlias, TypeVar

from tvix_store.model.digest import Digest
from tvix_store.model.directory import Directory
from tvix_store.model.nodes import Node
from tvix_store.model.path_info import PathInfo
from tvix_store.model.store_path import StorePath
from tvix_store.model.trust import NOBODY, Trust
from tvix_store.services.blobs import BlobService, BlobStat
from tvix_store.services.directories import DirectoryService
from tvix_store.services.path_infos import PathInfoService
from tvix_store.services.store import Store
from tvix_store.services.stored_tree import StoredTree
from tvix_store.testing.content import stream

T = TypeVar("T")

Fault: TypeAlias = Callable[[bytes], Awaitable[bytes]]
"""Sees everything that passes a faulty service, in either direction, and returns what is to pass instead.

It gets every piece of a blob, every blob of a batch, and `b""` at the begin of every call and for every directory and path info.
"""


class _CutShort(Exception):  # noqa: N818
    """Ends a stream as if it were complete."""


def failing(error: Exception, *, after: int = 0) -> Fault:
    """Raises `error` for good once `after` things have passed."""
    left = _countdown(after)

    async def fault(data: bytes) -> bytes:
        if left() < 0:
            raise error
        return data

    return fault


def cutting(*, after: int = 0) -> Fault:
    """Ends streams and batches early, without an error, once `after` things have passed."""
    return failing(_CutShort(), after=after)


def flipping(*, after: int = 0) -> Fault:
    """Flips the lowest bit of the first byte of everything once `after` things have passed."""
    left = _countdown(after)

    async def fault(data: bytes) -> bytes:
        return bytes([data[0] ^ 1]) + data[1:] if left() < 0 and data else data

    return fault


def delaying(seconds: float) -> Fault:
    """Lets everything pass after a while."""

    async def fault(data: bytes) -> bytes:
        await asyncio.sleep(seconds)
        return data

    return fault


def _countdown(start: int) -> Callable[[], int]:
    left = start

    def count() -> int:
        nonlocal left
        left -= 1
        return left

    return count


class FaultyBlobs:
    """A BlobService that goes wrong as `fault` says."""

    def __init__(self, inner: BlobService, fault: Fault) -> None:
        self._inner = inner
        self._fault = fault

    async def stat(self, digest: Digest, *, chunks: bool = False) -> BlobStat | None:
        await _begin(self._fault)
        return await self._inner.stat(digest, chunks=chunks)

    async def missing(self, digests: Sequence[Digest]) -> set[Digest]:
        await _begin(self._fault)
        return await self._inner.missing(digests)

    async def read(self, digest: Digest, start: int = 0, stop: int | None = None) -> AsyncIterator[bytes]:
        await _begin(self._fault)
        async for piece in _through(self._inner.read(digest, start, stop), self._fault):
            yield piece

    async def put(self, data: AsyncIterable[bytes]) -> Digest:
        await _begin(self._fault)
        return await self._inner.put(_through(data, self._fault))

    async def put_many(self, blobs: Sequence[bytes]) -> list[Digest]:
        await _begin(self._fault)
        return await self._inner.put_many([blob async for blob in _through(stream(blobs), self._fault)])

    async def get_many(self, digests: Sequence[Digest]) -> list[bytes | None]:
        await _begin(self._fault)
        return [blob async for blob in self._batch(await self._inner.get_many(digests))]

    async def _batch(self, blobs: Sequence[bytes | None]) -> AsyncIterator[bytes | None]:
        with suppress(_CutShort):
            for blob in blobs:
                yield None if blob is None else await self._fault(blob)


class FaultyDirectories:
    """A DirectoryService that goes wrong as `fault` says."""

    def __init__(self, inner: DirectoryService, fault: Fault) -> None:
        self._inner = inner
        self._fault = fault

    async def get(self, digest: Digest) -> Directory | None:
        await _begin(self._fault)
        return await self._inner.get(digest)

    async def get_recursive(self, digest: Digest) -> AsyncIterator[Directory]:
        await _begin(self._fault)
        async for directory in _past(self._inner.get_recursive(digest), self._fault):
            yield directory

    def tree(self, root: Node) -> StoredTree:
        return StoredTree(self, root)

    async def put(self, directories: AsyncIterable[Directory]) -> Digest:
        await _begin(self._fault)
        return await self._inner.put(_past(directories, self._fault))


class FaultyPathInfos:
    """A PathInfoService that goes wrong as `fault` says."""

    def __init__(self, inner: PathInfoService, fault: Fault) -> None:
        self._inner = inner
        self._fault = fault

    async def get(self, output_hash: bytes) -> PathInfo | None:
        await _begin(self._fault)
        return await self._inner.get(output_hash)

    async def get_many(self, output_hashes: Sequence[bytes]) -> dict[bytes, PathInfo]:
        await _begin(self._fault)
        return await self._inner.get_many(output_hashes)

    async def existing(self, output_hashes: Sequence[bytes]) -> dict[bytes, StorePath]:
        await _begin(self._fault)
        return await self._inner.existing(output_hashes)

    async def put(
        self, path_info: PathInfo, trust: Trust = NOBODY, *, requires: Collection[StorePath] = (), calculated: bool = False
    ) -> PathInfo:
        await _begin(self._fault)
        return await self._inner.put(path_info, trust, requires=requires, calculated=calculated)

    async def list(self, after: bytes = b"") -> AsyncIterator[PathInfo]:
        await _begin(self._fault)
        async for path_info in _past(self._inner.list(after), self._fault):
            yield path_info


def faulty(store: Store, fault: Fault) -> Store:
    """The same store, with blobs, directories and path infos that go wrong as `fault` says; its NAR service stays as it is."""
    return store.with_services(
        blobs=FaultyBlobs(store.blobs, fault),
        directories=FaultyDirectories(store.directories, fault),
        path_infos=FaultyPathInfos(store.path_infos, fault),
    )


async def _begin(fault: Fault) -> None:
    with suppress(_CutShort):  # a call is no stream
        await fault(b"")


async def _through(pieces: AsyncIterable[bytes], fault: Fault) -> AsyncIterator[bytes]:
    async for piece in pieces:
        try:
            passed = await fault(piece)
        except _CutShort:
            return
        yield passed


async def _past(items: AsyncIterable[T], fault: Fault) -> AsyncIterator[T]:
    async for item in items:
        try:
            await fault(b"")
        except _CutShort:
            return
        yield item
