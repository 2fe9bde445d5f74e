"""MemoryDirectories: directories in a dict."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterable, AsyncIterator

from tvix_store.errors import NotFoundError
from tvix_store.model.digest import Digest
from tvix_store.model.directory import Directory
from tvix_store.model.directory_graph import LeavesToRoot
from tvix_store.model.nodes import Node
from tvix_store.services.stored_tree import StoredTree


class MemoryDirectories:
    """A DirectoryService in memory."""

    def __init__(self) -> None:
        self._directories: dict[Digest, Directory] = {}

    async def get(self, digest: Digest) -> Directory | None:
        return self._directories.get(digest)

    async def get_recursive(self, digest: Digest) -> AsyncIterator[Directory]:
        waiting, seen = deque([digest]), {digest}
        while waiting:
            directory = self._directories.get(waiting[0])
            if directory is None:
                raise NotFoundError("directory", waiting[0])
            waiting.popleft()
            yield directory
            for _, child in directory.directories():
                if child.digest not in seen:
                    seen.add(child.digest)
                    waiting.append(child.digest)

    def tree(self, root: Node) -> StoredTree:
        return StoredTree(self, root)

    async def put(self, directories: AsyncIterable[Directory]) -> Digest:
        order = LeavesToRoot()
        received: dict[Digest, Directory] = {}
        async for directory in directories:
            order.add(directory)
            received[directory.digest] = directory
        root = order.finish()
        self._directories.update(received)
        return root

    def take_over(self, other: MemoryDirectories) -> None:
        """Store all that `other` has."""
        self._directories |= other._directories
