"""MemoryRecords: records in a dict."""

from __future__ import annotations

from collections.abc import Mapping

from tvix_store.services.records import check_records


class MemoryRecords:
    """A RecordService in memory."""

    def __init__(self) -> None:
        self._records: dict[bytes, bytes] = {}

    async def get(self, key: bytes) -> bytes | None:
        return self._records.get(key)

    async def put(self, records: Mapping[bytes, bytes], *, durable: bool = True) -> None:
        check_records(records)
        self._records |= records
