"""StoredTree: the DirectoryTree of a backend that finds each directory by its own digest."""

from __future__ import annotations

from collections.abc import AsyncIterator

from tvix_store.errors import NotFoundError
from tvix_store.model.digest import Digest
from tvix_store.model.directory import Directory
from tvix_store.model.nodes import DirectoryNode, Node
from tvix_store.services.directories import DirectoryService

_KEPT = 4 << 20
"""Bytes of encoded directories that are kept: parsed, they are 20 MB of objects. A Go toolchain has 1.2 MB."""


class StoredTree:
    """Reads directories one by one. If the caller expects all, they come from one recursive read.

    A call each would be a round trip each on a remote store. Of a tree too large to keep, directories beyond the limit are read one
    by one.
    """

    def __init__(self, directories: DirectoryService, root: Node) -> None:
        self.root = root
        self._directories = directories
        self._stream: AsyncIterator[Directory] | None = None
        self._kept: dict[Digest, Directory] = {}
        self._size = 0

    def expect_all(self) -> None:
        if self._stream is None and isinstance(self.root, DirectoryNode):
            self._stream = self._directories.get_recursive(self.root.digest)

    async def get(self, digest: Digest) -> Directory:
        while self._stream is not None and digest not in self._kept and self._size < _KEPT:
            received = await anext(self._stream, None)
            if received is None:
                break
            self._kept[received.digest] = received
            self._size += len(received.encoded)
        directory = self._kept.get(digest) or await self._directories.get(digest)
        if directory is None:
            raise NotFoundError("directory", digest)
        return directory

    def below(self, node: Node) -> StoredTree:
        return StoredTree(self._directories, node)
