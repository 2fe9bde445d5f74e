"""Deleting paths that somebody names, however lately they were used."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from enum import Enum

from tvix_store.concurrency.cooperative import Yielder
from tvix_store.errors import ConflictError, NotFoundError
from tvix_store.model.store_path import StorePath
from tvix_store.operations.collection.kept import kept_path
from tvix_store.operations.collection.pins import Pins
from tvix_store.operations.collection.unused import powers_of
from tvix_store.services.path_infos import PathInfoService
from tvix_store.services.store import Store

_TRIES = 5
"""Others may pin, and put, paths between a look and a removal."""
_MOST_NAMED = 3
"""Referrers that an error names."""


class Referrers(Enum):
    """What becomes of a path to which others refer. It stays, or the others go with it, or they lose it."""

    REFUSE = "refuse"
    DELETE = "delete"
    IGNORE = "ignore"


async def delete_paths(store: Store, paths: Sequence[StorePath], referrers: Referrers = Referrers.REFUSE) -> list[StorePath]:
    """Delete paths; all that is gone. Their content stays until it is collected.

    Either all go that are named, or none does, unless others put or pin paths meanwhile.

    Raises:
        NotFoundError: a path is not in the store.
        ConflictError: a path is pinned, or others refer to it.
        UnsupportedError, DeniedError: the store has no removal, or is read-only.
        CorruptError: the record of a pin is damaged.
        ExhaustedError: the disk is full.
    """
    records, removal = powers_of(store)
    pins = Pins(records)
    wanted = {each.output_hash: each for each in paths}
    for each in paths:
        if await kept_path(store, each.output_hash) is None:
            raise NotFoundError("store path", each.absolute(store.store_dir))
    gone: list[StorePath] = []
    for _ in range(_TRIES):
        guard, pinned = await pins.guard(), await pins.pinned(await pins.now())
        doomed = dict(wanted)
        if referrers is not Referrers.IGNORE:
            found = await referrers_of(store.path_infos, wanted, all_of_them=referrers is Referrers.DELETE)
            if found and referrers is Referrers.REFUSE:
                await _refuse_needed(store, wanted, found)
            doomed |= await _paths(store, found)
        for output_hash, path in doomed.items():
            if output_hash in pinned:
                raise ConflictError(f"{path.absolute(store.store_dir)} is pinned by {pinned[output_hash]}: remove that pin first")
        removed = await removal.remove(doomed, unused_since=None, ignore_references=referrers is Referrers.IGNORE, guard=guard)
        gone += [path for output_hash, path in doomed.items() if output_hash in removed]
        wanted = await _paths(store, wanted)
        if not wanted:
            return gone
    left = next(iter(wanted.values())).absolute(store.store_dir)
    raise ConflictError(f"{left} is still there: others put, or pin, paths that need it all the time")


async def referrers_of(path_infos: PathInfoService, output_hashes: Collection[bytes], *, all_of_them: bool) -> dict[bytes, bytes]:
    """The output hashes of other paths that refer to some paths: each with that of a path to which it refers.

    `all_of_them`: also those that refer to the referrers, and so on. That takes some 300 bytes of memory a path of the store.
    """
    yielder = Yielder()
    known: dict[bytes, list[bytes]] = {}
    found: dict[bytes, bytes] = {}
    async for path_info in path_infos.list():
        own, references = path_info.output_hashes
        if own not in output_hashes:
            needed = next((each for each in references if each in output_hashes), None)
            if needed is not None:
                found[own] = needed
            if all_of_them:
                for each in references:
                    known.setdefault(each, []).append(own)
        await yielder.step()
    waiting = list(found)
    while waiting:
        needed = waiting.pop()
        for referrer in known.get(needed, ()):
            if referrer not in found:
                found[referrer] = needed
                waiting.append(referrer)
    return found


async def _refuse_needed(store: Store, wanted: Mapping[bytes, StorePath], found: Mapping[bytes, bytes]) -> None:
    needed = next(iter(found.values()))
    by = [each for each, to in found.items() if to == needed]
    more = f" and {len(by) - _MOST_NAMED} more" if len(by) > _MOST_NAMED else ""
    named = ", ".join(str(each) for each in (await _paths(store, by[:_MOST_NAMED])).values())
    raise ConflictError(f"{wanted[needed].absolute(store.store_dir)} is needed by {named}{more}")


async def _paths(store: Store, output_hashes: Collection[bytes]) -> dict[bytes, StorePath]:
    """The paths that are in the store, by output hash."""
    found = {each: await kept_path(store, each) for each in output_hashes}
    return {each: info.store_path for each, info in found.items() if info is not None}
