"""How much the store holds, as gauges. To count a store of 100,000 paths takes a second, so it is done once a minute at most."""

from __future__ import annotations

import asyncio
import logging
import shutil
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from tvix_store.errors import StoreError
from tvix_store.observe.metrics import Metrics
from tvix_store.services.statistics import Statistics, Stats
from tvix_store.telemetry import meters

_FRESH = 60.0
"""Seconds for which counts are repeated, those of any worker."""
_PATIENCE = 2.0
"""Seconds that a scrape waits for new counts. Then it gets the old ones."""
_log = logging.getLogger(__name__)


class StoreGauges:
    """Counts the store for who asks, and the room on the disks below `directories`, those of its local stores."""

    def __init__(self, statistics: Statistics | None, directories: Sequence[Path], metrics: Metrics) -> None:
        self._statistics = statistics
        self._directories = directories
        self._metrics = metrics
        self._counting: asyncio.Task[None] | None = None
        self._next = 0.0

    async def refresh(self) -> None:
        """Count anew, where that was a while ago. What cannot be counted now keeps its old value."""
        if self._statistics is None:
            return
        is_due = time.monotonic() >= self._next and time.time() - self._metrics.counted_at() >= _FRESH
        if self._counting is None and is_due:
            self._next = time.monotonic() + _FRESH
            self._counting = asyncio.create_task(self._count(self._statistics))
        if self._counting is not None:
            await asyncio.wait({self._counting}, timeout=_PATIENCE)

    async def aclose(self) -> None:
        if self._counting is not None:
            self._counting.cancel()
            with suppress(asyncio.CancelledError):
                await self._counting

    async def _count(self, statistics: Statistics) -> None:
        try:
            stats = await statistics.stats()
            self._look_at_disks()
            _tell(stats)
        except StoreError as error:
            _log.warning("the store cannot be counted: %s", error)
        finally:
            self._counting = None

    def _look_at_disks(self) -> None:
        usages = []
        for directory in self._directories:
            with suppress(OSError):
                usages.append(shutil.disk_usage(directory))
        if usages:
            tightest = min(usages, key=lambda usage: usage.free)
            meters.DISK_FREE.of().set(tightest.free)
            meters.DISK_SIZE.of().set(tightest.total)


def _tell(stats: Stats) -> None:
    meters.STORE_PATHS.of().set(stats.path_infos)
    meters.STORE_DIRECTORIES.of().set(stats.directories)
    meters.STORE_CHUNKS.of().set(stats.chunks)
    meters.STORE_LOGICAL.of().set(stats.logical_bytes)
    meters.STORE_UNIQUE.of().set(stats.unique_bytes)
    meters.STORE_STORED.of().set(stats.stored_bytes)
    meters.STORE_DISK.of().set(stats.disk_bytes)
    meters.DEDUP_RATIO.of().set(stats.logical_bytes / stats.unique_bytes if stats.unique_bytes else 1.0)
    meters.COMPRESSION_RATIO.of().set(stats.unique_bytes / stats.stored_bytes if stats.stored_bytes else 1.0)
    # Last: the newest counts are those of the worker with the latest time.
    meters.STORE_COUNTED.of().set(time.time())
