"""LastUses: when the paths of a store were used last, themselves or by a path that needs them."""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from tvix_store.concurrency.cooperative import Yielder
from tvix_store.errors import CorruptError
from tvix_store.services.batches import parts
from tvix_store.services.path_infos import PathInfoService
from tvix_store.services.records import RecordService
from tvix_store.services.removal import USED, read_hour, used_records

_AT_ONCE = 5000
"""Uses that are written in one put."""
_UNKNOWN, _PINNED = (1 << 32) - 2, (1 << 32) - 1
"""Stand for an hour."""


@dataclass(frozen=True, slots=True)
class LastUse:
    """The last use of a path (output hash, 20 bytes) or of a path that needs it: the hour."""

    output_hash: bytes
    hour: int


async def write_uses(records: RecordService, output_hashes: Collection[bytes], hour: int) -> None:
    """Note that paths are used in an hour, and return when that is written.

    Raises:
        ExhaustedError: the disk is full.
    """
    for some in parts(list(output_hashes), _AT_ONCE):
        await records.put(used_records(dict.fromkeys(some, hour)), durable=False)


def hour_in(value: bytes, now: int) -> int:
    """The hour in a record. One that is damaged, or to come, is taken for this hour."""
    try:
        return min(read_hour(value), now)
    except CorruptError:
        return now


class LastUses:
    """The last uses of the paths of a store, as they were at one time: some 300 bytes of memory a path.

    A path without a use on record counts as used `now`: it is from before uses were noted.
    """

    def __init__(self, now: int) -> None:
        self._now = now
        self._numbers: dict[bytes, int] = {}
        """Each path has a number. It is its place in these arrays:
        _hours: its own last use.
        _is_there: Whether it is in the store.
        _begins, _ends: Where the paths to which it refers stand in _references.

        _references: The numbers of these paths, those of one path after those of another."""
        self._hours = array("I")
        self._is_there = bytearray()
        self._begins = array("I")
        self._ends = array("I")
        self._references = array("I")

    @classmethod
    async def read(
        cls, path_infos: PathInfoService, records: RecordService, *, now: int, pinned: Collection[bytes] = ()
    ) -> LastUses:
        """Read the records, and then the path infos, of a store. The `pinned` paths, and all that they need, count as in use."""
        uses = cls(now)
        yielder = Yielder()
        async for key, value in records.list(USED):
            uses._hours[uses._number(key[len(USED) :])] = hour_in(value, now)
            await yielder.step()
        async for path_info in path_infos.list():
            own, references = path_info.output_hashes
            number = uses._number(own)
            uses._is_there[number] = True
            uses._begins[number] = len(uses._references)
            uses._references.extend([uses._number(each) for each in references])
            uses._ends[number] = len(uses._references)
            await yielder.step()
        for each in pinned:
            uses._hours[uses._number(each)] = _PINNED
        return uses

    @property
    def paths(self) -> list[bytes]:
        """The paths that are in the store."""
        return [each for each, n in self._numbers.items() if self._is_there[n]]

    @property
    def without_record(self) -> list[bytes]:
        """The paths without a use on record."""
        return [each for each, n in self._numbers.items() if self._is_there[n] and self._hours[n] == _UNKNOWN]

    @property
    def strays(self) -> list[bytes]:
        """Paths that are not there, and were used before the last hour: a put that was refused, or a use that came too late."""
        return [each for each, n in self._numbers.items() if not self._is_there[n] and self._hours[n] < self._now - 1]

    async def ordered(self) -> list[LastUse]:
        """All paths but those that are pinned or needed by a pinned one, the least recently used first.

        Each stands before the paths to which it refers. So the paths up to any of them may go without the others.
        """
        order, hours = await asyncio.to_thread(self._order)
        hashes = list(self._numbers)
        return [LastUse(hashes[n], hours[n]) for n in reversed(order) if hours[n] != _PINNED]

    def _order(self) -> tuple[array[int], array[int]]:
        """The numbers of the paths that are there, the most recently used first, each behind all to which it refers; the hours of
        their last uses, by number."""
        own, begins, ends, references = self._hours, self._begins, self._ends, self._references
        hours = array("I", [self._now if hour == _UNKNOWN else hour for hour in own])
        seen = bytearray(len(hours))
        order = array("I")
        for root in sorted(range(len(hours)), key=hours.__getitem__, reverse=True):
            if seen[root] or not self._is_there[root]:
                continue
            hour = hours[root]
            seen[root] = True
            waiting: list[tuple[int, Iterator[int]]] = [(root, iter(references[begins[root] : ends[root]]))]
            while waiting:
                number, children = waiting[-1]
                for child in children:
                    if not seen[child] and self._is_there[child]:
                        seen[child] = True
                        hours[child] = hour
                        waiting.append((child, iter(references[begins[child] : ends[child]])))
                        break
                else:
                    waiting.pop()
                    order.append(number)
        return order, hours

    def _number(self, output_hash: bytes) -> int:
        number = self._numbers.setdefault(output_hash, len(self._numbers))
        if number == len(self._hours):
            self._hours.append(_UNKNOWN)
            self._is_there.append(False)
            self._begins.append(0)
            self._ends.append(0)
        return number
