"""StagingBeside: the stages of a store whose records stand in another one."""

from __future__ import annotations

from collections.abc import Mapping

from tvix_store.services.blobs import BlobService
from tvix_store.services.directories import DirectoryService
from tvix_store.services.records import RecordService, check_records
from tvix_store.services.staging import NO_RECORDS, Stage, StagedNar, Staging


class StagingBeside:
    """A Staging whose stages put records elsewhere, when the content is accepted."""

    def __init__(self, staging: Staging, records: RecordService) -> None:
        self._staging = staging
        self._records = records

    def begin(self, *, rechecks: bool = False) -> Stage:
        return _StageBeside(self._staging.begin(rechecks=rechecks), self._records)


class _StageBeside:
    def __init__(self, stage: Stage, records: RecordService) -> None:
        self._stage = stage
        self._records = records

    @property
    def blobs(self) -> BlobService:
        return self._stage.blobs

    @property
    def directories(self) -> DirectoryService:
        return self._stage.directories

    def new_bytes(self) -> int:
        return self._stage.new_bytes()

    async def accept(self, nar: StagedNar | None = None, records: Mapping[bytes, bytes] = NO_RECORDS) -> None:
        check_records(records)
        await self._stage.accept(nar)
        if records:
            await self._records.put(records, durable=False)

    async def close(self) -> None:
        await self._stage.close()
