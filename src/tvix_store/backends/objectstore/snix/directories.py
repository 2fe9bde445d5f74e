"""SnixDirectories: trees of directories as objects, one each, in the layout of snix.

snix finds a directory by the root of a tree alone. So an object of ours beside says of each directory in which tree it stands.
It is written after the tree: who finds it finds the directory, and all below it, in one more request.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterable, AsyncIterator
from contextlib import suppress

from tvix_store.backends.objectstore.bucket import Bucket
from tvix_store.backends.objectstore.snix.closures import MOST, Closure, decode, encode
from tvix_store.backends.objectstore.snix.keys import tree_key, tree_of_key
from tvix_store.concurrency.each_at_once import each_at_once
from tvix_store.concurrency.single_flight import SingleFlight
from tvix_store.errors import CorruptError, DeniedError, ExhaustedError, NotFoundError
from tvix_store.model.digest import Digest
from tvix_store.model.directory import Directory
from tvix_store.model.directory_graph import LeavesToRoot
from tvix_store.model.nodes import DirectoryNode, Node
from tvix_store.services.held_graphs import HeldGraphs

_KEPT = 16 << 20
"""Bytes of encoded directories that stay in memory, of the trees that were used last. A Go toolchain has 1.2 MB."""
_AT_ONCE = 32


class SnixDirectories:
    """A DirectoryService over a bucket."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._kept: OrderedDict[Digest, Closure] = OrderedDict()
        self._kept_size = 0
        self._graphs = HeldGraphs()
        self._loading = SingleFlight(self._begin)

    async def get(self, digest: Digest) -> Directory | None:
        closure = await self.closure_with(digest)
        return None if closure is None else closure.directories[digest]

    async def get_recursive(self, digest: Digest) -> AsyncIterator[Directory]:
        closure = await self.closure_with(digest)
        if closure is None:
            raise NotFoundError("directory", digest)
        for directory in closure.below(digest):
            yield directory

    def tree(self, root: Node) -> SnixTree:
        return SnixTree(self, root)

    async def put(self, directories: AsyncIterable[Directory]) -> Digest:
        order = LeavesToRoot()
        received: dict[Digest, Directory] = {}
        size = 0
        with self._graphs.graph() as held:
            async for directory in directories:
                order.add(directory)
                if directory.digest not in received:
                    received[directory.digest] = directory
                    held.add(directory)
                    size += len(directory.encoded)
                if size > MOST:
                    raise ExhaustedError(f"the directories of a tree have more than {MOST} bytes, the most that one object holds")
            root = order.finish()
            await self._put(Closure(root, received))
            return root

    async def closure_with(self, digest: Digest) -> Closure | None:
        """The directories of a tree that has `digest` in it; None where no tree is known that has."""
        for closure in reversed(self._kept.values()):
            if digest in closure.directories:
                return self._used(closure)
        return await self._loading.result(digest)

    async def closure_of(self, root: Digest) -> Closure | None:
        """As `closure_with`, of the root of a path: it gets an object of its own, if another tree alone has it."""
        closure = await self.closure_with(root)
        if closure is not None and closure.root != root and await self._bucket.size(tree_key(root)) is None:
            with suppress(DeniedError):  # who may only read puts no path that needs it
                await self._put(closure.part(root))
        return closure

    async def _put(self, closure: Closure) -> None:
        found = await self._bucket.get(tree_of_key(closure.root), 32)
        if found is not None and found.data == closure.root.raw:  # the last one was written, so all are there
            return
        await self._bucket.put(tree_key(closure.root), await asyncio.to_thread(encode, closure))

        async def point(digest: Digest) -> None:
            await self._bucket.put(tree_of_key(digest), closure.root.raw)

        await each_at_once(point, [digest for digest in closure.directories if digest != closure.root], _AT_ONCE)
        await point(closure.root)
        self._keep(closure)

    def _begin(self, digest: Digest) -> asyncio.Task[Closure | None]:
        return asyncio.create_task(self._load(digest))

    async def _load(self, digest: Digest) -> Closure | None:
        closure = await self._read(digest)
        if closure is None:
            pointer = await self._bucket.get(tree_of_key(digest), 32)
            if pointer is None:
                return None
            closure = await self._read(Digest(pointer.data)) if len(pointer.data) == len(digest.raw) else None
            if closure is None or digest not in closure.directories:
                raise CorruptError(f"directory {digest} is not in the tree in which it should be")
        self._keep(closure)
        return closure

    async def _read(self, root: Digest) -> Closure | None:
        found = await self._bucket.get(tree_key(root))
        return None if found is None else await asyncio.to_thread(decode, root, found.data)

    def _keep(self, closure: Closure) -> None:
        if closure.root not in self._kept:
            self._kept[closure.root] = closure
            self._kept_size += closure.size
            while self._kept_size > _KEPT and len(self._kept) > 1:
                _, oldest = self._kept.popitem(last=False)
                self._kept_size -= oldest.size

    def _used(self, closure: Closure) -> Closure:
        self._kept.move_to_end(closure.root)
        return closure


class SnixTree:
    """A DirectoryTree that is one object."""

    def __init__(self, directories: SnixDirectories, root: Node, above: SnixTree | None = None) -> None:
        self.root = root
        self._directories = directories
        self._above = above
        self._closure: Closure | None = None

    def expect_all(self) -> None:
        """Nothing: it is always read as a whole."""

    async def get(self, digest: Digest) -> Directory:
        closure = await self.closure()
        directory = None if closure is None else closure.directories.get(digest)
        if directory is None:
            raise NotFoundError("directory", digest)
        return directory

    def below(self, node: Node) -> SnixTree:
        return SnixTree(self._directories, node, self)

    async def closure(self) -> Closure | None:
        """All directories of the tree, or of one that it is a part of. None where they are not there."""
        if self._closure is None and self._above is not None:
            self._closure = await self._above.closure()
        elif self._closure is None and isinstance(self.root, DirectoryNode):
            self._closure = await self._directories.closure_of(self.root.digest)
        return self._closure
