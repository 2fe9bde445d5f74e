"""Which paths go by the policy of a store: those that nobody has used for long.

A path stays if it is pinned, if it was used, or put, within the time that is kept, and if a path that stays refers to it.
"""

from __future__ import annotations

from collections.abc import Sequence

from tvix_store.errors import DeniedError, UnsupportedError
from tvix_store.operations.collection.last_uses import LastUse, LastUses, write_uses
from tvix_store.operations.collection.pins import Pins
from tvix_store.services.batches import parts
from tvix_store.services.records import RecordService
from tvix_store.services.removal import Removal, used_key
from tvix_store.services.store import Store

_AT_ONCE = 5000
"""Records that are deleted together."""
_TRIES = 5
"""Others may pin paths between a look at the pins and a removal."""


async def remove_unused(store: Store, *, now: int, keep_for: int, noted_every: int = 2, dry_run: bool = False) -> set[bytes]:
    """Remove the paths that nobody has used for `keep_for` hours; the output hashes of what is gone.

    For paths without a use on record, the time begins `now`, an hour of `Hours.now`. A use is on record once in `noted_every`
    hours. So a path may stay so much longer. With `dry_run` nothing is written. The answer is then what a run would remove, if
    nobody used the store meanwhile.

    Raises:
        UnsupportedError, DeniedError: the store has no removal, or is read-only.
        CorruptError: the record of a pin is damaged. Nobody knows what it keeps, so nothing is removed.
        ExhaustedError: the disk is full.
    """
    records, removal = powers_of(store)
    since = max(now - keep_for - noted_every + 1, 0)
    uses = await last_uses(store, now=now)
    unused = [each.output_hash for each in await uses.ordered() if each.hour < since]
    if dry_run:
        return set(unused)
    await write_uses(records, uses.without_record, now)
    for some in parts([used_key(each) for each in uses.strays], _AT_ONCE):
        await records.delete(some)
    # What is pinned by now counts as used.
    return await removal.remove(unused, unused_since=since)


async def last_uses(store: Store, *, now: int) -> LastUses:
    """The last uses of the paths of a store, and which are pinned.

    Raises:
        UnsupportedError, DeniedError, CorruptError: as `remove_unused`.
    """
    records, _ = powers_of(store)
    return await LastUses.read(store.path_infos, records, now=now, pinned=await Pins(records).pinned(now))


async def remove_paths(store: Store, paths: Sequence[LastUse], *, now: int) -> set[bytes]:
    """Remove the first paths of `LastUses.ordered`, but those that were used or pinned since; the output hashes of what is gone.

    While others pin all the time, fewer may go.

    Raises:
        UnsupportedError, DeniedError, CorruptError, ExhaustedError: as `remove_unused`.
    """
    records, removal = powers_of(store)
    pins = Pins(records)
    since = max((each.hour for each in paths), default=0) + 1
    gone: set[bytes] = set()
    for _ in range(_TRIES):
        guard, pinned = await pins.guard(), await pins.pinned(now)
        chosen = [each.output_hash for each in paths if each.output_hash not in pinned and each.output_hash not in gone]
        # Uses do not tell pins of this hour from those before.
        gone |= await removal.remove(chosen, unused_since=since, guard=guard)
        if await pins.guard() == guard:
            break
    return gone


def powers_of(store: Store) -> tuple[RecordService, Removal]:
    """What a store needs for that.

    Raises:
        DeniedError: the store is read-only.
        UnsupportedError: it removes nothing.
    """
    if store.read_only:
        raise DeniedError(f"{store.name} can only be read: nothing is removed from it")
    if store.records is None or store.removal is None:
        raise UnsupportedError(f"{store.name} removes no paths for us: use the address of the store itself, on its machine")
    return store.records, store.removal
