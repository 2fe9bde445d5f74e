"""HeldDirectories: of the directories of a store those that a named cache holds.

A cache that holds a directory holds all directories below it, since they are sent together. It need not hold the files: a client
may send a directory that names files it has never sent.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Coroutine, Mapping
from contextlib import AbstractContextManager, aclosing
from typing import Any, TypeAlias, cast

from tvix_store.layers.holding.held import Held, Kind
from tvix_store.layers.holding.quota import Room
from tvix_store.model.digest import Digest
from tvix_store.model.directory import Directory
from tvix_store.model.nodes import DirectoryNode, Node
from tvix_store.services.directories import DirectoryService, DirectoryTree

Sent: TypeAlias = Callable[[Mapping[Digest, int]], Coroutine[Any, Any, None]]
"""Called with the digests of directories that were sent to the cache, and are stored, and the bytes of each."""


class HeldDirectories:
    """A DirectoryService over `inner`. Directories that are put go there, where `room` has room, and `sent` then hears of them."""

    def __init__(self, inner: DirectoryService, held: Held, room: Callable[[], AbstractContextManager[Room]], sent: Sent) -> None:
        self._inner = inner
        self._held = held
        self._room = room
        self._sent = sent

    async def get(self, digest: Digest) -> Directory | None:
        return await self._inner.get(digest) if await self._held.has(Kind.DIRECTORY, digest) else None

    async def get_recursive(self, digest: Digest) -> AsyncIterator[Directory]:
        await self._held.require(Kind.DIRECTORY, (digest,))
        directories = cast("AsyncGenerator[Directory, None]", self._inner.get_recursive(digest))
        async with aclosing(directories):
            async for directory in directories:
                yield directory

    def tree(self, root: Node) -> DirectoryTree:
        return _HeldTree(self._inner.tree(root), self._held)

    async def put(self, directories: AsyncIterable[Directory]) -> Digest:
        sizes: dict[Digest, int] = {}
        with self._room() as room:

            async def noted() -> AsyncIterator[Directory]:
                async for directory in directories:
                    sizes[directory.digest] = len(directory.encoded)
                    await room.grow(len(directory.encoded))
                    yield directory

            root = await self._inner.put(noted())
            await self._sent(sizes)
        return root


class _HeldTree:
    """A tree whose root the cache must hold. `is_held`: that was seen."""

    def __init__(self, inner: DirectoryTree, held: Held, *, is_held: bool = False) -> None:
        self._inner = inner
        self._held = held
        self._is_held = is_held

    @property
    def root(self) -> Node:
        return self._inner.root

    def expect_all(self) -> None:
        self._inner.expect_all()

    async def get(self, digest: Digest) -> Directory:
        await self._require()
        return await self._inner.get(digest)

    def below(self, node: Node) -> DirectoryTree:
        # The root reaches the node; where the root is held, so is what stands below it.
        return _HeldTree(self._inner.below(node), self._held, is_held=self._is_held)

    async def _require(self) -> None:
        root = self._inner.root
        if not self._is_held and isinstance(root, DirectoryNode):
            await self._held.require(Kind.DIRECTORY, (root.digest,))
        self._is_held = True
