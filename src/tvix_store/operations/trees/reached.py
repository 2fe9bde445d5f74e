"""Reached: all content that some root nodes reach."""

from __future__ import annotations

from tvix_store.concurrency.cooperative import Yielder
from tvix_store.model.digest import Digest
from tvix_store.model.nodes import DirectoryNode, FileNode, Node
from tvix_store.services.blobs import BlobService
from tvix_store.services.directories import DirectoryService


class Reached:
    """What was come to from all roots that were added, each digest once: some 100 bytes of memory each.

    blobs: Digests (32 bytes) of files, and of their chunks.
    directories: Digests of directories.
    size: Bytes of the files, each with its whole size, and of the directories.
    holes: How many blobs and directories are missing. What they would reach is not known.
    """

    def __init__(self, blobs: BlobService, directories: DirectoryService) -> None:
        self._blobs = blobs
        self._directories = directories
        self._yielder = Yielder()
        self.blobs: set[bytes] = set()
        self.directories: set[bytes] = set()
        self.size = 0
        self.holes = 0

    async def add(self, root: Node) -> None:
        """Add all that a root node reaches.

        Raises:
            CorruptError, UnavailableError: the store cannot be read.
        """
        waiting: list[Node] = [root]
        while waiting:
            node = waiting.pop()
            if isinstance(node, FileNode):
                await self.add_blob(node.digest)
            elif isinstance(node, DirectoryNode) and node.digest.raw not in self.directories:
                self.directories.add(node.digest.raw)
                directory = await self._directories.get(node.digest)
                if directory is None:
                    self.holes += 1
                else:
                    self.size += len(directory.encoded)
                    waiting += directory.entries.values()
            await self._yielder.step()

    async def add_blob(self, digest: Digest) -> None:
        """Add a blob and its chunks."""
        if digest.raw in self.blobs:
            return
        self.blobs.add(digest.raw)
        stat = await self._blobs.stat(digest, chunks=True)
        if stat is None:
            self.holes += 1
            return
        self.size += stat.size or 0
        self.blobs.update(chunk.digest.raw for chunk in stat.chunks)
