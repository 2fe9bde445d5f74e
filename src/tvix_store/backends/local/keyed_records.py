"""LocalRecords: the RecordService of a local store."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from tvix_store.backends.local.engine import Engine
from tvix_store.backends.local.requests import PutRecords
from tvix_store.services.records import check_records


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
