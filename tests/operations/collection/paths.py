"""Stores with paths, whose time the test lets pass."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tvix_store.model.store_path import StorePath
from tvix_store.operations.collection.hours import DAILY, Hours
from tvix_store.operations.collection.last_uses import write_uses
from tvix_store.operations.collection.pins import Keep, Pins, Revision, pin
from tvix_store.operations.collection.unused import remove_unused
from tvix_store.services.records import RecordService
from tvix_store.services.store import Store
from tvix_store.testing.contracts.path_infos import path
from tvix_store.testing.contracts.removal import hash_of, listed, put


@dataclass
class Collected:
    """A store, and its clock in seconds since 1970."""

    store: Store
    clock: float = 500_000 * 3600.0

    @property
    def records(self) -> RecordService:
        assert self.store.records is not None
        return self.store.records

    @property
    def hours(self) -> Hours:
        return Hours(self.records, lambda: self.clock, DAILY)

    @property
    def pins(self) -> Pins:
        return Pins(self.records, lambda: self.clock)

    async def let_pass(self, hours: int) -> None:
        """So many hours, each of which is looked at."""
        for _ in range(hours):
            self.clock += 3600
            await self.hours.look()

    async def put(self, name: str, *references: str, used: int | None = 0) -> None:
        """Put a path that was used so many hours ago; None: no use is on record."""
        await put(self.store, name, *references)
        if used is not None:
            await write_uses(self.records, [hash_of(name)], await self.hours.now() - used)

    async def pin(self, name: str, *paths: str, keep: Keep | None = None) -> Revision:
        return await pin(self.store, self.pins, name, [path(each) for each in paths], keep or Keep())

    async def pinned(self) -> set[str]:
        return self.names(await self.pins.pinned(await self.hours.now()))

    async def run(self, keep_for: int) -> set[str]:
        """Remove what is unused, as a dry run has said before."""
        now = await self.hours.now()
        before = await self.all_records()
        said = await remove_unused(self.store, now=now, keep_for=keep_for, noted_every=1, dry_run=True)
        assert await self.all_records() == before, "a dry run writes nothing"
        gone = await remove_unused(self.store, now=now, keep_for=keep_for, noted_every=1)
        assert gone == said
        return self.names(gone)

    async def all_records(self) -> dict[bytes, bytes]:
        return {key: value async for key, value in self.records.list()}

    async def listed(self) -> set[str]:
        return await listed(self.store)

    def names(self, output_hashes: Iterable[bytes]) -> set[str]:
        return {NAMES[each] for each in output_hashes}


NAMES = {
    hash_of(name): name
    for name in (
        *("a", "b", "c", "d", "e", "f", "near", "far", "old", "new", "kept", "gone", "needs", "alone"),
        *(f"path-{number}" for number in range(40)),
    )
}
"""The names of paths in these tests, by output hash."""


def paths(*names: str) -> list[StorePath]:
    return [path(each) for each in names]
