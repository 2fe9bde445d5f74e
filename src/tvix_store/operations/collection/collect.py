"""collect: keep a store small. First paths go by a policy, and then content that no path needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import time

from tvix_store.errors import DeniedError, UnsupportedError
from tvix_store.operations.collection.hours import DAILY, Hours
from tvix_store.operations.collection.unused import last_uses, powers_of, remove_paths, remove_unused
from tvix_store.services.collection import Collected, ContentCollection, Progress, Room
from tvix_store.services.store import Store

GRACE = 24 * 3600.0
"""Seconds for which content stays that no path needs any more."""


@dataclass(frozen=True, slots=True)
class Policy:
    """Which paths go.

    keep_for: Hours for which a path stays after its last use; None is for ever.
    max_size: Bytes that the store may take on the disk. The paths that were not used for the longest time go first.
    min_free: Bytes that are to be free on its file system, as far as removing paths helps.
    grace: Seconds for which their content stays.
    """

    keep_for: int | None = None
    max_size: int | None = None
    min_free: int | None = None
    grace: float = GRACE

    @property
    def removes_paths(self) -> bool:
        return (self.keep_for, self.max_size, self.min_free) != (None, None, None)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was done: how many paths went, what became of content, and how much of the disk the store takes now."""

    paths: int
    content: Collected
    room: Room


async def collect(
    store: Store,
    policy: Policy,
    *,
    dry_run: bool = False,
    progress: Progress | None = None,
    clock: Callable[[], float] = time,
) -> Outcome:
    """Remove the paths that go by the policy, delete content that no path needs, and give its space back.

    It may be stopped at any moment. With `dry_run` nothing is changed: `content.condemned` is what all that would free in the end.

    Raises:
        UnsupportedError: the store collects nothing.
        StoreError: as `remove_unused` and `ContentCollection.collect`.
    """
    collection = collection_of(store)
    gone: set[bytes] = set()
    if policy.removes_paths:
        records, _ = powers_of(store)
        hours = Hours(records, clock, DAILY)
        if not dry_run:
            await hours.look()
        now = await hours.now()
        if policy.keep_for is not None:
            gone = await remove_unused(store, now=now, keep_for=policy.keep_for, dry_run=dry_run)
        size = allowed(policy, await collection.room())
        if size is not None:
            gone |= await _shrink(store, collection, size, now, gone, dry_run=dry_run, progress=progress)
    if dry_run:
        content = await collection.expected(gone, progress=progress)
    else:
        content = await collection.collect(policy.grace, progress=progress)
    return Outcome(len(gone), content, await collection.room())


def collection_of(store: Store) -> ContentCollection:
    """What collects content.

    Raises:
        DeniedError: the store is read-only.
        UnsupportedError: it has no such power.
    """
    if store.read_only:
        raise DeniedError(f"{store.name} can only be read: nothing is collected")
    if store.collection is None:
        raise UnsupportedError(
            f"{store.name} collects nothing for us; a store in a directory does, by its address without ?cache=, on its machine"
        )
    return store.collection


def allowed(policy: Policy, room: Room) -> int | None:
    """The bytes that the store may take; None where there is no bound."""
    bounds = []
    if policy.max_size is not None and room.used > policy.max_size:
        bounds.append(policy.max_size)
    if policy.min_free is not None and room.free < policy.min_free:
        bounds.append(max(room.used - (policy.min_free - room.free), 0))
    return min(bounds, default=None)


async def _shrink(
    store: Store,
    collection: ContentCollection,
    size: int,
    now: int,
    gone: set[bytes],
    *,
    dry_run: bool,
    progress: Progress | None,
) -> set[bytes]:
    """Remove the least recently used paths, until what is left fits in `size` bytes; the output hashes of what is gone.

    Pinned paths stay. `gone` are paths that count as not there.
    """
    uses = await last_uses(store, now=now)
    order = [each for each in await uses.ordered() if each.output_hash not in gone]
    movable = {each.output_hash for each in order}
    pinned = [each for each in uses.paths if each not in movable and each not in gone]
    kept_first = [*pinned, *(each.output_hash for each in reversed(order))]
    fitting = await collection.fitting(kept_first, size, progress=progress)
    too_many = order[: min(len(kept_first) - fitting, len(order))]
    if dry_run:
        return {each.output_hash for each in too_many}
    return await remove_paths(store, too_many, now=now)
