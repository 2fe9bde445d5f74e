"""Blobs, Directories and PathInfos: the services of a store that is open, which take their arguments in many forms."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Collection, Iterable, Sequence
from contextlib import suppress

from tvix_store.errors import InvalidError
from tvix_store.library.data import Data, as_pieces, as_stream
from tvix_store.library.life import Life
from tvix_store.model import nixbase32
from tvix_store.model.digest import Digest
from tvix_store.model.directory import Directory
from tvix_store.model.nodes import DirectoryNode, FileNode, Node, SymlinkNode
from tvix_store.model.path_info import NarFacts, PathInfo
from tvix_store.model.store_path import HASH_CHARACTERS, OUTPUT_HASH_SIZE, StorePath
from tvix_store.model.trust import NOBODY, Trust
from tvix_store.model.wanted import wanted, wanted_many
from tvix_store.services.blobs import BlobService, BlobStat
from tvix_store.services.directories import DirectoryService, DirectoryTree
from tvix_store.services.nar import NarService
from tvix_store.services.path_infos import PathInfoService


class Blobs:
    """The blobs of a store: a `BlobService` that takes bytes, files and iterables too."""

    def __init__(self, inner: BlobService, life: Life) -> None:
        self._inner = life.guarded(inner)

    async def stat(self, digest: Digest | str, *, chunks: bool = False) -> BlobStat | None:
        """As `BlobService.stat`."""
        return await self._inner.stat(_digest(digest), chunks=chunks)

    async def missing(self, digests: Sequence[Digest | str]) -> set[Digest]:
        """As `BlobService.missing`."""
        return await self._inner.missing(_digests(digests))

    def read(self, digest: Digest | str, start: int = 0, stop: int | None = None) -> AsyncIterator[bytes]:
        """As `BlobService.read`.

        Raises:
            InvalidError: `start` or `stop` is negative: both count from the begin.
        """
        digest = _digest(digest)
        if start < 0 or (stop is not None and stop < 0):
            raise InvalidError(f"a part of a blob is counted from its begin: start={start}, stop={stop}")
        return self._inner.read(digest, start, stop)

    async def put(self, data: Data) -> Digest:
        """Store a blob: bytes, an open file up to its end, or the concatenation of the pieces of any iterable.

        Raises:
            InvalidError: `data` is none of these.
            ExhaustedError: a limit is reached, or the disk is full. Nothing of the blob became visible.
        """
        return await self._inner.put(as_pieces(data))

    async def put_many(self, blobs: Sequence[bytes]) -> list[Digest]:
        """As `BlobService.put_many`."""
        some = [wanted(each, bytes, "bytes") for each in wanted_many(blobs, "a sequence of bytes, one for each blob")]
        return await self._inner.put_many(some)

    async def get_many(self, digests: Sequence[Digest | str]) -> list[bytes | None]:
        """As `BlobService.get_many`."""
        return await self._inner.get_many(_digests(digests))


class Directories:
    """The directories of a store: a `DirectoryService` that takes iterables too."""

    def __init__(self, inner: DirectoryService, life: Life) -> None:
        self._inner = life.guarded(inner)
        self._life = life

    async def get(self, digest: Digest | str) -> Directory | None:
        """As `DirectoryService.get`."""
        return await self._inner.get(_digest(digest))

    def get_recursive(self, digest: Digest | str) -> AsyncIterator[Directory]:
        """As `DirectoryService.get_recursive`."""
        return self._inner.get_recursive(_digest(digest))

    def tree(self, root: Node) -> DirectoryTree:
        """As `DirectoryService.tree`."""
        return _Tree(self._inner.tree(_node(root)), self._life)

    async def put(self, directories: Iterable[Directory] | AsyncIterable[Directory]) -> Digest:
        """As `DirectoryService.put`."""
        return await self._inner.put(_checked(directories))


class _Tree:
    """The handle of a tree in a store that is open."""

    def __init__(self, inner: DirectoryTree, life: Life) -> None:
        self._inner = inner
        self._life = life

    @property
    def root(self) -> Node:
        return self._inner.root

    def expect_all(self) -> None:
        self._inner.expect_all()

    async def get(self, digest: Digest) -> Directory:
        self._life.check()
        return await self._inner.get(digest)

    def below(self, node: Node) -> DirectoryTree:
        return _Tree(self._inner.below(node), self._life)


class PathInfos:
    """The path infos of a store: a `PathInfoService` that finds them by store path, by base name, and by hash.

    A hash is 20 bytes, or the 32 characters of them.
    """

    def __init__(self, inner: PathInfoService, life: Life, store_dir: str) -> None:
        self._inner = life.guarded(inner)
        self._store_dir = store_dir

    async def get(self, output_hash: StorePath | str | bytes) -> PathInfo | None:
        """The path info of a store path, or None if the store lacks it, or has another name under its hash.

        Raises:
            InvalidError: this names no store path.
        """
        asked = self._asked(output_hash)
        found = await self._inner.get(asked.output_hash if isinstance(asked, StorePath) else asked)
        return found if found is None or asked in {found.store_path, found.store_path.output_hash} else None

    async def get_many(self, output_hashes: Sequence[StorePath | str | bytes]) -> dict[bytes, PathInfo]:
        """The path infos that there are of these store paths, by their hashes (20 bytes). Names are not compared.

        Raises:
            InvalidError: as `get`.
        """
        return await self._inner.get_many(self._hashes(output_hashes))

    async def existing(self, output_hashes: Sequence[StorePath | str | bytes]) -> dict[bytes, StorePath]:
        """As `PathInfoService.existing`, of store paths in any form.

        Raises:
            InvalidError: as `get`.
        """
        return await self._inner.existing(self._hashes(output_hashes))

    async def put(
        self, path_info: PathInfo, trust: Trust = NOBODY, *, requires: Collection[StorePath] = (), calculated: bool = False
    ) -> PathInfo:
        """As `PathInfoService.put`."""
        wanted(path_info, PathInfo, "a PathInfo")
        return await self._inner.put(path_info, trust, requires=requires, calculated=calculated)

    def list(self, after: StorePath | str | bytes = b"") -> AsyncIterator[PathInfo]:
        """As `PathInfoService.list`; `after` is a store path in any form.

        Raises:
            InvalidError: as `get`.
        """
        return self._inner.list(self._hash(after) if after else b"")

    def _hashes(self, paths: Iterable[StorePath | str | bytes]) -> Sequence[bytes]:
        return tuple(map(self._hash, wanted_many(paths, "store paths, in an iterable")))

    def _hash(self, path: StorePath | str | bytes) -> bytes:
        asked = self._asked(path)
        return asked.output_hash if isinstance(asked, StorePath) else asked

    def _asked(self, path: StorePath | str | bytes) -> StorePath | bytes:
        """The store path that is meant, or its hash where that is all that was said."""
        match path:
            case StorePath():
                return path
            case bytes() if len(path) == OUTPUT_HASH_SIZE:
                return path
            case str():
                base = path.removeprefix(self._store_dir + "/")
                with suppress(InvalidError):
                    return nixbase32.decode(base) if len(base) == HASH_CHARACTERS else StorePath.from_base_name(base)
        raise InvalidError(
            f"not a store path: {str(path)[:250]!r} (expected a StorePath, {self._store_dir}/<hash>-<name>, <hash>-<name>, "
            f"or the hash: {HASH_CHARACTERS} characters or {OUTPUT_HASH_SIZE} bytes)"
        )


class Nars:
    """The NARs of a store: a `NarService`."""

    def __init__(self, inner: NarService, life: Life) -> None:
        self._inner = life.guarded(inner)

    async def calculate(self, node: Node) -> NarFacts:
        """As `NarService.calculate`."""
        return await self._inner.calculate(_node(node))


def _digest(digest: Digest | str) -> Digest:
    return Digest.parse(digest) if isinstance(digest, str) else wanted(digest, Digest, "a digest: a Digest, or its text")


def _digests(digests: Iterable[Digest | str]) -> list[Digest]:
    return list(map(_digest, wanted_many(digests, "digests, in a sequence")))


def _node(node: Node) -> Node:
    wanted(node, (DirectoryNode, FileNode, SymlinkNode), "a node, as `(await resolve(store, path)).node`, or `path_info.node`")
    return node


async def _checked(directories: Iterable[Directory] | AsyncIterable[Directory]) -> AsyncGenerator[Directory, None]:
    if not isinstance(directories, AsyncIterable):
        wanted_many(directories, "directories, in an iterable, leaves first")
    async for directory in as_stream(directories):
        yield wanted(directory, Directory, "a Directory")
