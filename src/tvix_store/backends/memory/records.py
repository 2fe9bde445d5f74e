"""MemoryRecords: records in a dict."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping

from tvix_store.services.records import Changes, check_records


class MemoryRecords:
    """A RecordService in memory."""

    def __init__(self) -> None:
        self._records: dict[bytes, bytes] = {}

    async def get(self, key: bytes) -> bytes | None:
        return self._records.get(key)

    async def put(self, records: Mapping[bytes, bytes], *, durable: bool = True) -> None:
        check_records(records)
        self._records |= records

    async def delete(self, keys: Collection[bytes]) -> None:
        for key in keys:
            self._records.pop(key, None)

    async def exchange(self, changes: Changes) -> int:
        due = {key: new for key, (expected, new) in changes.items() if self._records.get(key) == expected}
        await self.put({key: new for key, new in due.items() if new is not None})
        await self.delete([key for key, new in due.items() if new is None])
        return len(due)

    async def list(self, prefix: bytes = b"") -> AsyncIterator[tuple[bytes, bytes]]:
        for key, value in sorted(self._records.items()):
            if key.startswith(prefix):
                yield key, value
