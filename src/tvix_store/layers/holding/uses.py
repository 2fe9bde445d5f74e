"""Uses: when the paths of a named cache were used last."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Collection, Sequence

from tvix_store.layers.holding.hours import Hours
from tvix_store.layers.passing import PassingPathInfos
from tvix_store.model.path_info import PathInfo
from tvix_store.model.store_path import StorePath
from tvix_store.model.trust import NOBODY, Trust
from tvix_store.services.batches import parts
from tvix_store.services.path_infos import PathInfoService
from tvix_store.services.records import RecordService
from tvix_store.services.removal import used_records

_PAUSE = 1.0
"""Seconds for which uses are gathered, and
_AT_ONCE: how many are written in one put."""
_AT_ONCE = 5000
_log = logging.getLogger(__name__)


class Uses:
    """Notes the uses of a path once in `period` hours. They are written a second later, together."""

    def __init__(self, records: RecordService, hours: Hours, period: int) -> None:
        self._records = records
        self._hours = hours
        self._period = period
        self._current = -1
        """The period for which uses are
        _noted: these paths are written, or they are
        _waiting: to be written."""
        self._noted: set[bytes] = set()
        self._waiting: set[bytes] = set()
        self._is_closing = asyncio.Event()
        self._writing: asyncio.Task[None] | None = None

    def note(self, output_hash: bytes) -> None:
        """Note that a path is used now."""
        if output_hash not in self._noted:
            self._noted.add(output_hash)
            self._waiting.add(output_hash)
            if self._writing is None:
                self._writing = asyncio.create_task(self._write_soon())

    async def write(self, output_hashes: Collection[bytes]) -> None:
        """Note that paths are used now, and return when that is written.

        Raises:
            ExhaustedError: the disk is full.
        """
        now = await self._hours.now()
        for some in parts(list(output_hashes), _AT_ONCE):
            await self._records.put(used_records(dict.fromkeys(some, now)), durable=False)

    async def look(self) -> None:
        """Note uses again, once a new period has begun. To be called every hour."""
        current = await self._hours.now() // self._period
        if current != self._current:
            self._current = current
            self._noted = set(self._waiting)

    async def close(self) -> None:
        """Write what waits."""
        self._is_closing.set()
        if self._writing is not None:
            await self._writing

    async def _write_soon(self) -> None:
        try:
            async with asyncio.timeout(_PAUSE):
                await self._is_closing.wait()
        except TimeoutError:
            pass
        while self._waiting:
            waiting, self._waiting = self._waiting, set()
            try:
                await self.write(waiting)
            except Exception as error:  # noqa: BLE001 - nobody waits for it; the next use is noted again
                self._noted -= waiting
                _log.warning("the uses of %d paths are not noted: %s", len(waiting), error)
        self._writing = None


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

    async def put(
        self, path_info: PathInfo, trust: Trust = NOBODY, *, requires: Collection[StorePath] = (), calculated: bool = False
    ) -> PathInfo:
        # Before it is put: a put that finds the path there changes nothing, and a removal must see its use.
        await self._uses.write([path_info.store_path.output_hash])
        return await self._inner.put(path_info, trust, requires=requires, calculated=calculated)

    def list(self) -> AsyncIterator[PathInfo]:
        return self._inner.list()
