"""MemoryStaging: content in dicts of its own until it is accepted."""

from __future__ import annotations

from collections.abc import Mapping

from tvix_store.backends.memory.blobs import MemoryBlobs
from tvix_store.backends.memory.directories import MemoryDirectories
from tvix_store.backends.memory.records import MemoryRecords
from tvix_store.chunking import ChunkSizes
from tvix_store.services.nar import KnownNars
from tvix_store.services.staging import NO_RECORDS, StagedNar


class MemoryStaging:
    """The Staging of a store in memory."""

    def __init__(
        self, blobs: MemoryBlobs, directories: MemoryDirectories, nars: KnownNars, records: MemoryRecords, sizes: ChunkSizes
    ) -> None:
        self.all_blobs = blobs
        self.all_directories = directories
        self.nars = nars
        self.records = records
        self.sizes = sizes

    def begin(self, *, rechecks: bool = False) -> MemoryStage:
        return MemoryStage(self)


class MemoryStage:
    """A Stage in memory."""

    def __init__(self, staging: MemoryStaging) -> None:
        self._staging = staging
        self.blobs = MemoryBlobs(staging.sizes)
        self.directories = MemoryDirectories()

    def new_bytes(self) -> int:
        return self.blobs.size_beyond(self._staging.all_blobs)

    async def accept(self, nar: StagedNar | None = None, records: Mapping[bytes, bytes] = NO_RECORDS) -> None:
        staging = self._staging
        await staging.records.put(records)
        staging.all_blobs.take_over(self.blobs)
        staging.all_directories.take_over(self.directories)
        if nar is not None:
            await staging.nars.put(*nar, staging.nars.begin())

    async def close(self) -> None:
        pass
