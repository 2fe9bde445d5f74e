"""PackSyncs: when a committer brings packs to the disk itself.

All packs are synced for what is durable. Records that nobody waits for to be durable are synced as soon as there is nothing else to
do, and within half a second in any case.
"""

from __future__ import annotations

from math import inf
from time import monotonic

from tvix_store.backends.local.index import Index
from tvix_store.backends.local.pack_reader import PackReader
from tvix_store.backends.local.pack_writer import PackWriter
from tvix_store.errors import CorruptError

_WITHIN = 0.5
"""Seconds within which records that are not durable are synced."""


class PackSyncs:
    """The syncs of one committer, in its thread. Any of them raises SyncFailedError where the disk fails."""

    def __init__(self, index: Index, writer: PackWriter, reader: PackReader) -> None:
        self._index = index
        self._writer = writer
        self._reader = reader
        self._records_at = inf
        """When records that are not durable must be synced; infinite where there are none."""

    @property
    def is_due(self) -> bool:
        """Whether records that are not durable have waited for long enough."""
        return monotonic() >= self._records_at

    def remember_records(self) -> None:
        """Records that are not durable were appended to the pack that is written now."""
        self._records_at = min(self._records_at, monotonic() + _WITHIN)

    def forget_records(self) -> None:
        """The pack that is written now has no such records: all of it is synced, or it is lost."""
        self._records_at = inf

    def sync_records(self) -> None:
        """Bring records that are not durable to the disk itself.

        While a client of small pushes thinks of its path info, this does half of what that would wait for.
        """
        if self._records_at != inf:
            self._writer.sync()
            self._records_at = inf

    def sync_all(self) -> dict[int, int]:
        """Bring all committed and appended bytes to the disk itself; the sizes of the packs that are there now."""
        with self._index.reading() as txn:
            synced = self._index.unsynced_packs(txn)
        for number in tuple(synced):
            if number != self._writer.number:
                try:
                    self._reader.sync(number)
                except CorruptError:  # it is lost, which is not the disk's failure
                    del synced[number]
        self._writer.sync()
        if self._writer.number:
            synced[self._writer.number] = self._writer.size
        return synced
