"""PackCheck: reads all of a pack, and forgets what is damaged.

Damage seldom comes alone. So where some is found, all of its pack is looked at: what is damaged counts as missing then, and the
next put of any of it stores it again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from blake3 import blake3

from tvix_store.backends.objectstore.bucket import Bucket
from tvix_store.backends.objectstore.packed.chunk_lists import ChunkListSegment
from tvix_store.backends.objectstore.packed.contents import Kind, Place
from tvix_store.backends.objectstore.packed.spans import LONGEST
from tvix_store.backends.objectstore.packed.view import Record, View
from tvix_store.compression.chunk_frames import chunk_content
from tvix_store.concurrency.single_flight import SingleFlight
from tvix_store.errors import CorruptError, InvalidError
from tvix_store.services.batches import filling

_log = logging.getLogger(__name__)


class PackCheck:
    """Checks packs, each once at a time."""

    def __init__(self, bucket: Bucket, view: View) -> None:
        self._bucket = bucket
        self._view = view
        self._checks: SingleFlight[str, int] = SingleFlight(lambda key: asyncio.ensure_future(self._check(key)))

    async def check(self, key: str) -> int:
        """Check all that the view knows of in a pack. What is damaged is forgotten; how many records these are."""
        return await self._checks.result(key)

    async def _check(self, key: str) -> int:
        records = await asyncio.to_thread(self._view.records_in, key)
        size = await self._bucket.size(key)
        damaged: list[Record] = []
        for some in filling(records, lambda record: record.place.stored, size=LONGEST):
            start, end = some[0].place.offset, some[-1].place.end
            data: memoryview | None = memoryview(b"")
            if size is None or size < end:
                data = None
            elif end > start:
                data = await self._bucket.get_range(key, start, end - start)
            damaged += some if data is None else await asyncio.to_thread(_damaged, some, data, start)
        if damaged:
            _log.error("%d of %d records are damaged in %s/%s", len(damaged), len(records), self._bucket.name, key)
            await asyncio.to_thread(self._view.forget, damaged)
        return len(damaged)


def opened(digest: bytes, place: Place, stored: bytes | memoryview | None) -> bytes | None:
    """The chunk or directory of which `stored` was read; None where it does not match the digest."""
    if stored is None:
        return None
    try:
        content = chunk_content(stored, place.length)
    except InvalidError:
        return None
    # As bytes: it is copied here, in the thread that has just read it. A view would keep alive all that was read with it.
    return bytes(content) if blake3(content).digest() == digest else None


def _damaged(records: Sequence[Record], data: memoryview, start: int) -> list[Record]:
    """Those of the records that are not right in `data`, which was read from `start` on. Blocks."""
    return [each for each in records if not _is_whole(each, data[each.place.offset - start : each.place.end - start])]


def _is_whole(record: Record, stored: memoryview) -> bool:
    if record.kind != Kind.LIST:
        return opened(record.digest, record.place, stored) is not None
    try:
        return ChunkListSegment.decode(stored, record.digest).start == record.start
    except CorruptError:
        return False
