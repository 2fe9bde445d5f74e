"""LocalRecords: the RecordService of a local store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping

from tvix_store.backends.local.engine import Engine
from tvix_store.backends.local.requests import ExchangeRecords, PutRecords
from tvix_store.services.records import Changes, check_records

_PAGE = 256
"""Rows that `list` takes from the index at a time, as with path infos."""


class LocalRecords:
    """Records in packs and index, as path infos are."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def get(self, key: bytes) -> bytes | None:
        return self._engine.index.record(key)

    async def put(self, records: Mapping[bytes, bytes], *, durable: bool = True) -> None:
        check_records(records)
        if records:
            await asyncio.wrap_future(self._engine.committer.submit(PutRecords(records, durable=durable)))

    async def delete(self, keys: Collection[bytes]) -> None:
        there = dict.fromkeys(key for key in keys if self._engine.index.record(key) is not None)
        if there:
            await asyncio.wrap_future(self._engine.committer.submit(PutRecords(there, durable=True)))

    async def exchange(self, changes: Changes) -> int:
        check_records({key: new for key, (_, new) in changes.items() if new is not None})
        request = ExchangeRecords(changes)
        if changes:
            await asyncio.wrap_future(self._engine.committer.submit(request))
        return request.changed

    async def list(self, prefix: bytes = b"") -> AsyncIterator[tuple[bytes, bytes]]:
        start = prefix
        while rows := self._engine.index.records_from(start, prefix, _PAGE):
            for key, value in rows:
                if value is not None:
                    yield key, value
            await asyncio.sleep(0)
            start = rows[-1][0] + b"\0"
