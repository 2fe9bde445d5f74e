"""Uses: when the paths of a named cache were used last."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence

from tvix_store.errors import StoreError
from tvix_store.layers.passing import PassingPathInfos
from tvix_store.model.path_info import PathInfo
from tvix_store.model.store_path import StorePath
from tvix_store.model.trust import NOBODY, Trust
from tvix_store.services.path_infos import PathInfoService
from tvix_store.services.records import RecordService
from tvix_store.services.removal import HOUR, used_records

_PAUSE = 1.0
"""Seconds for which uses are gathered."""
_log = logging.getLogger(__name__)


class Uses:
    """Notes uses in records, once an hour for each path. They are written a second later, together."""

    def __init__(self, records: RecordService, clock: Callable[[], float] = time.time) -> None:
        self._records = records
        self._clock = clock
        self._hour = 0
        self._noted: set[bytes] = set()
        """The paths whose use in this hour is noted, or among
        _waiting: those that wait to be written, and the hours of their uses."""
        self._waiting: dict[bytes, int] = {}
        self._writing: asyncio.Task[None] | None = None

    def hour(self) -> int:
        """This hour."""
        return int(self._clock() / HOUR)

    def note(self, output_hash: bytes) -> None:
        """Note that a path is used now."""
        hour = self.hour()
        if hour != self._hour:
            self._hour = hour
            self._noted.clear()
        if output_hash not in self._noted:
            self._noted.add(output_hash)
            self._waiting[output_hash] = hour
            if self._writing is None:
                self._writing = asyncio.create_task(self._write_soon())

    async def write(self, output_hashes: Iterable[bytes]) -> None:
        """Note that paths are used now, and return when that is written."""
        await self._records.put(used_records(dict.fromkeys(output_hashes, self.hour())), durable=False)

    async def close(self) -> None:
        """Write what waits."""
        if self._writing is not None:
            self._writing.cancel()
            await asyncio.gather(self._writing, return_exceptions=True)
        await self._write()

    async def _write_soon(self) -> None:
        await asyncio.sleep(_PAUSE)
        await self._write()
        self._writing = None

    async def _write(self) -> None:
        waiting, self._waiting = self._waiting, {}
        if waiting:
            try:
                await self._records.put(used_records(waiting), durable=False)
            except StoreError as error:
                _log.warning("the uses of %d paths are not noted: %s", len(waiting), error)


class UsedPathInfos(PassingPathInfos):
    """A PathInfoService that notes which paths are asked for, and put."""

    def __init__(self, inner: PathInfoService, uses: Uses) -> None:
        super().__init__(inner)
        self._uses = uses

    async def get(self, output_hash: bytes) -> PathInfo | None:
        found = await self._inner.get(output_hash)
        if found is not None:
            self._uses.note(output_hash)
        return found

    async def get_many(self, output_hashes: Sequence[bytes]) -> dict[bytes, PathInfo]:
        found = await self._inner.get_many(output_hashes)
        for each in found:
            self._uses.note(each)
        return found

    async def existing(self, output_hashes: Sequence[bytes]) -> dict[bytes, StorePath]:
        found = await self._inner.existing(output_hashes)
        for each in found:
            self._uses.note(each)
        return found

    async def put(self, path_info: PathInfo, trust: Trust = NOBODY) -> PathInfo:
        # Before it is put: a put that finds the path there changes nothing, and a removal must see its use.
        await self._uses.write([path_info.store_path.output_hash])
        return await self._inner.put(path_info, trust)

    def list(self) -> AsyncIterator[PathInfo]:
        return self._inner.list()
