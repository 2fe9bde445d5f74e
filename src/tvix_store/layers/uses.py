"""Uses: when the paths of a store or a named cache were used last. A path is used when it is asked for, and when it is put."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Collection, Coroutine, Sequence
from typing import Any

from tvix_store.layers.passing import PassingPathInfos
from tvix_store.model.path_info import PathInfo
from tvix_store.model.store_path import StorePath
from tvix_store.model.trust import NOBODY, Trust
from tvix_store.operations.collection.hours import Hours
from tvix_store.operations.collection.last_uses import write_uses
from tvix_store.services.path_infos import PathInfoService
from tvix_store.services.records import RecordService

_PAUSE = 1.0
"""Seconds for which uses are gathered before they are written."""
_MOST_NOTED = 200_000
"""Paths of which is remembered that their uses are noted: some 20 MB. Beyond, uses are noted more often."""
_log = logging.getLogger(__name__)


class Uses:
    """Notes the uses of a path once in `period` hours. They are written a second later, together.

    is_noting: Whether uses are noted. False for a store from which nothing is removed.
    """

    def __init__(self, records: RecordService, hours: Hours, period: int, *, is_noting: bool = True) -> None:
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
        self.is_noting = is_noting

    def note(self, output_hash: bytes) -> None:
        """Note that a path is used now."""
        if output_hash not in self._noted:
            if len(self._noted) >= _MOST_NOTED:
                self._noted = set(self._waiting)
            self._noted.add(output_hash)
            self._waiting.add(output_hash)
            if self._writing is None:
                self._writing = asyncio.create_task(self._write_soon())

    async def write(self, output_hashes: Collection[bytes]) -> None:
        """Note that paths are used now, and return when that is written.

        Raises:
            ExhaustedError: the disk is full.
        """
        await write_uses(self._records, output_hashes, await self._hours.now())

    async def look(self) -> None:
        """Note uses again, once a new period has begun. To be called every hour, or more often."""
        current = await self._hours.now() // self._period
        if current != self._current:
            self._current = current
            self._noted = set(self._waiting)

    async def may_note(self) -> bool:
        """Whether uses are noted. From the first look on that somebody takes at the hours, they are."""
        self.is_noting = self.is_noting or await self._hours.have_begun()
        return self.is_noting

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

    # No coroutine of its own where nothing is noted: that would be 1 of a narinfo's 30 µs.
    def get(self, output_hash: bytes) -> Coroutine[Any, Any, PathInfo | None]:
        found = self._inner.get(output_hash)
        return self._noted(found, output_hash) if self._uses.is_noting else found

    async def _noted(self, asked: Coroutine[Any, Any, PathInfo | None], output_hash: bytes) -> PathInfo | None:
        found = await asked
        if found is not None:
            self._uses.note(output_hash)
        return found

    async def get_many(self, output_hashes: Sequence[bytes]) -> dict[bytes, PathInfo]:
        found = await self._inner.get_many(output_hashes)
        self._note_all(found)
        return found

    async def existing(self, output_hashes: Sequence[bytes]) -> dict[bytes, StorePath]:
        found = await self._inner.existing(output_hashes)
        self._note_all(found)
        return found

    async def put(
        self, path_info: PathInfo, trust: Trust = NOBODY, *, requires: Collection[StorePath] = (), calculated: bool = False
    ) -> PathInfo:
        # Before it is put: a put that finds the path there changes nothing, and a removal must see its use.
        if await self._uses.may_note():
            await self._uses.write([path_info.store_path.output_hash])
        return await self._inner.put(path_info, trust, requires=requires, calculated=calculated)

    def list(self, after: bytes = b"") -> AsyncIterator[PathInfo]:
        return self._inner.list(after)

    def _note_all(self, output_hashes: Collection[bytes]) -> None:
        if self._uses.is_noting:
            for each in output_hashes:
                self._uses.note(each)
