"""MemoryStaging: content in dicts of its own until it is accepted."""

from __future__ import annotations

from tvix_store.backends.memory.blobs import MemoryBlobs
from tvix_store.backends.memory.directories import MemoryDirectories
from tvix_store.chunking import ChunkSizes


class MemoryStaging:
    """The Staging of a store in memory."""

    def __init__(self, blobs: MemoryBlobs, directories: MemoryDirectories, sizes: ChunkSizes) -> None:
        self._blobs = blobs
        self._directories = directories
        self._sizes = sizes

    def begin(self, *, rechecks: bool = False) -> MemoryStage:
        return MemoryStage(self._blobs, self._directories, self._sizes)


class MemoryStage:
    """A Stage in memory."""

    def __init__(self, blobs: MemoryBlobs, directories: MemoryDirectories, sizes: ChunkSizes) -> None:
        self._all_blobs = blobs
        self._all_directories = directories
        self.blobs = MemoryBlobs(sizes)
        self.directories = MemoryDirectories()

    async def accept(self) -> None:
        self._all_blobs.take_over(self.blobs)
        self._all_directories.take_over(self.directories)

    async def close(self) -> None:
        pass
