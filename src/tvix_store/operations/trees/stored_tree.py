"""Tree: a node, and the directories that it reaches, by digest."""

from __future__ import annotations

from collections.abc import AsyncIterator

from tvix_store.errors import NotFoundError
from tvix_store.model.digest import Digest
from tvix_store.model.directory import Directory
from tvix_store.model.nodes import DirectoryNode, Node
from tvix_store.services.directories import DirectoryService, parse

_KEPT = 4 << 20
"""Bytes of encoded directories that are kept: parsed, they are 20 MB of objects. A Go toolchain has 1.2 MB."""


class StoredTree:
    """Gives out the directories that `root` reaches, in any order, from one recursive read.

    A call each would be a round trip each on a remote store. Of a tree too large to keep, directories beyond the limit are read one
    by one.
    """

    def __init__(self, directories: DirectoryService, root: Node) -> None:
        self.root = root
        self._directories = directories
        self._stream = directories.get_recursive(root.digest) if isinstance(root, DirectoryNode) else _none()
        self._kept: dict[Digest, Directory] = {}
        self._size = 0

    async def get(self, digest: Digest) -> Directory:
        """The directory; large ones are parsed.

        Raises:
            NotFoundError: it, or another one below the root, is not in the store.
        """
        directory = await self.get_unparsed(digest)
        await parse(directory)
        return directory

    async def get_unparsed(self, digest: Digest) -> Directory:
        """As `get`, for a caller that does not look at all entries.

        Raises:
            NotFoundError: as `get`.
        """
        while digest not in self._kept and self._size < _KEPT:
            received = await anext(self._stream, None)
            if received is None:
                break
            self._kept[received.digest] = received
            self._size += len(received.encoded)
        directory = self._kept.get(digest) or await self._directories.get(digest)
        if directory is None:
            raise NotFoundError("directory", digest)
        return directory


async def _none() -> AsyncIterator[Directory]:
    return
    yield
