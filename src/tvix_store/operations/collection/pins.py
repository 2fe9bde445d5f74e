"""Pins: names under which paths stay, with all that they need, however long nobody uses them.

Whoever pins under a name again adds a *revision*: some paths, and for how long revisions stay. The record `pin:<name>/<revision>`
has it. The revision is 16 hexadecimal digits, the first eight of which rise, and the others are random. The value is

    version      u8      1
    made         u64-LE  seconds since 1970, for people
    hour         u32-LE  the hour of the store (`Hours.now`)
    keep_days    u32-LE  0: not given
    keep_revs    u32-LE  0: not given
    paths        the output hashes (20 bytes) one after the other

What the newest revision of a name says of keeping counts for all revisions of the name. The record `pin:` has random bytes that
change with each pin. A deletion reads them before it reads the pins, and in its transactions once more (`Guard`). A policy looks at
uses: a pin is a use of its paths.
"""

from __future__ import annotations

import os
import re
import struct
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass

from tvix_store.errors import CorruptError, InvalidError, NotFoundError
from tvix_store.model.store_path import OUTPUT_HASH_SIZE, StorePath
from tvix_store.operations.collection.hours import DAILY, Hours
from tvix_store.operations.collection.kept import kept_path
from tvix_store.operations.collection.last_uses import write_uses
from tvix_store.services.records import RecordService
from tvix_store.services.removal import Guard
from tvix_store.services.store import Store

PIN = b"pin:"
"""How the keys of the records begin, and the key of the record that changes with each pin."""
MOST_PATHS = 3000
"""Paths of one revision: a record has 64 KiB."""
MOST_DAYS = 100 * 366
MOST_REVISIONS = 100_000
_NAME = re.compile(r"[0-9A-Za-z_][0-9A-Za-z._+=@-]{0,99}")
_HEAD = struct.Struct("<BQIII")
_VERSION = 1
_REVISION = re.compile(r"[0-9a-f]{16}")
_HOURS_A_DAY = 24


@dataclass(frozen=True, slots=True)
class Keep:
    """For how long the revisions of a pin stay: for so many days, or so many of the newest; with neither, all of them.

    With both, a revision stays that either of them keeps. The newest one always stays.
    """

    days: int | None = None
    revisions: int | None = None

    def __post_init__(self) -> None:
        for count, what, most in ((self.days, "days", MOST_DAYS), (self.revisions, "revisions", MOST_REVISIONS)):
            if count is not None and not 1 <= count <= most:
                raise InvalidError(f"a pin stays for 1 to {most} {what}, not {count}")


KEEP_ALL = Keep()


@dataclass(frozen=True, slots=True)
class Revision:
    """A revision of a pin.

    key: Of its record.
    made: Seconds since 1970.
    hour: The hour of the store in which it was made.
    paths: Output hashes.
    """

    name: str
    number: int
    key: bytes
    made: int
    hour: int
    keep: Keep
    paths: tuple[bytes, ...]


class Pins:
    """The pins of a store, in its records. `clock` tells the seconds since 1970."""

    def __init__(self, records: RecordService, clock: Callable[[], float] = time.time) -> None:
        self._records = records
        self._clock = clock

    async def revisions(self, name: str | None = None, *, now: int | None = None) -> AsyncIterator[Revision]:
        """The revisions that are in force, of all pins or of one, ordered by name, the newest first.

        `now` is the hour of the store; by default it is this hour.

        Raises:
            CorruptError: a record is damaged.
        """
        hour = await self.now() if now is None else now
        async for revisions in self._by_name(PIN if name is None else _prefix(name)):
            for revision in _in_force(revisions, hour):
                yield revision

    async def pinned(self, now: int) -> dict[bytes, str]:
        """The output hashes of all paths that are pinned in an hour, each with the name of a pin.

        Raises:
            CorruptError: a record is damaged.
        """
        return {path: revision.name async for revision in self.revisions(now=now) for path in revision.paths}

    async def guard(self) -> Guard:
        """What a removal needs that reads the pins after this."""
        return Guard(PIN, await self._records.get(PIN))

    async def now(self) -> int:
        """The hour of the store."""
        return await Hours(self._records, self._clock, DAILY).now()

    async def put(self, name: str, paths: Sequence[bytes], keep: Keep = KEEP_ALL) -> Revision:
        """Put a new revision, note that its paths are used, and drop revisions that are over.

        Whether the paths are there is for `pin` to see.

        Raises:
            InvalidError: the name is none, or the paths are none or too many.
            CorruptError: a record is damaged.
            ExhaustedError: the disk is full.
        """
        check_pin_name(name)
        if not 1 <= len(paths) <= MOST_PATHS:
            raise InvalidError(f"a pin has 1 to {MOST_PATHS} paths, not {len(paths)}")
        before = [each async for revisions in self._by_name(_prefix(name)) for each in revisions]
        number = 1 + max((each.number for each in before), default=0)
        now, made = await self.now(), max(int(self._clock()), 0)
        key = _prefix(name) + f"{number:08x}{os.urandom(4).hex()}".encode()
        value = _HEAD.pack(_VERSION, made, now, keep.days or 0, keep.revisions or 0) + b"".join(paths)
        await self._records.put({key: value, PIN: os.urandom(16)})
        await write_uses(self._records, paths, now)
        revision = Revision(name, number, key, made, now, keep, tuple(paths))
        kept = {each.key for each in _in_force([*before, revision], now)}
        await self._records.delete([each.key for each in before if each.key not in kept])
        return revision

    async def take_back(self, revision: Revision) -> None:
        """Delete one revision."""
        await self._records.delete([revision.key])

    async def remove(self, name: str) -> None:
        """Delete all revisions of a pin, also damaged ones.

        Raises:
            InvalidError: the name is none.
            NotFoundError: there is no such pin.
            ExhaustedError: the disk is full.
        """
        check_pin_name(name)
        keys = [key async for key, _ in self._records.list(_prefix(name))]
        if not keys:
            raise NotFoundError("pin", name)
        await self._records.delete(keys)

    async def _by_name(self, prefix: bytes) -> AsyncIterator[list[Revision]]:
        """The revisions of each name, the oldest first."""
        some: list[Revision] = []
        async for key, value in self._records.list(prefix):
            if key == PIN:
                continue
            revision = _read(key, value)
            if some and some[0].name != revision.name:
                yield some
                some = []
            some.append(revision)
        if some:
            yield some


async def pin(store: Store, pins: Pins, name: str, paths: Sequence[StorePath], keep: Keep = KEEP_ALL) -> Revision:
    """Pin paths that are in the store.

    First the pin is put, and then the paths are looked for. A removal that began before may have taken one. A later one sees the
    pin.

    Raises:
        NotFoundError: a path is not in the store. Nothing is pinned.
        InvalidError, CorruptError, ExhaustedError: as `Pins.put`.
    """
    hashes = list(dict.fromkeys(each.output_hash for each in paths))
    await _look_for(store, paths)
    revision = await pins.put(name, hashes, keep)
    try:
        await _look_for(store, paths)
    except BaseException:
        await pins.take_back(revision)
        raise
    return revision


def check_pin_name(name: str) -> None:
    """Raise InvalidError where `name` cannot be that of a pin."""
    if not _NAME.fullmatch(name):
        raise InvalidError(
            f"not a name of a pin: {name[:120]!r} (1 to 100 characters of 0-9 A-Z a-z . _ + = @ -, not . + = @ - first)"
        )


async def _look_for(store: Store, paths: Sequence[StorePath]) -> None:
    for each in paths:
        if await kept_path(store, each.output_hash) is None:
            raise NotFoundError("store path", each.absolute(store.store_dir))


def _in_force(revisions: Sequence[Revision], now: int) -> list[Revision]:
    """Those of the revisions of a pin that are in force, the newest first."""
    newest_first = sorted(revisions, key=lambda each: each.key, reverse=True)
    keep = newest_first[0].keep
    if keep == KEEP_ALL:
        return newest_first
    since = now - keep.days * _HOURS_A_DAY if keep.days else now + 1
    return [each for at, each in enumerate(newest_first) if at == 0 or at < (keep.revisions or 0) or each.hour >= since]


def _prefix(name: str) -> bytes:
    return PIN + name.encode() + b"/"


def _read(key: bytes, value: bytes) -> Revision:
    """A revision by its record.

    Raises:
        CorruptError: the record is damaged.
    """
    name, _, revision = key[len(PIN) :].decode("latin-1").partition("/")
    paths = value[_HEAD.size :]
    is_whole = len(value) > _HEAD.size and len(paths) % OUTPUT_HASH_SIZE == 0
    if not (is_whole and value[0] == _VERSION and _NAME.fullmatch(name) and _REVISION.fullmatch(revision)):
        raise CorruptError(f"the record of a pin, {key[:120]!r}, is damaged, or was written by another version")
    _, made, hour, days, revisions = _HEAD.unpack_from(value)
    try:
        keep = Keep(days or None, revisions or None)
    except InvalidError as error:
        raise CorruptError(f"the record of pin {name} is damaged: {error}") from None
    hashes = tuple(paths[at : at + OUTPUT_HASH_SIZE] for at in range(0, len(paths), OUTPUT_HASH_SIZE))
    return Revision(name, int(revision[:8], 16), key, made, hour, keep, hashes)
