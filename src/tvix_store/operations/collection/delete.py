"""Deleting paths that somebody names, however lately they were used."""

from __future__ import annotations

from collections.abc import Collection, Sequence
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
    """What becomes of a path to which others refer: it stays, the others go as well, or they are left without it."""

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
            if referrers is Referrers.REFUSE:
                _refuse_needed(store, found)
            doomed |= {referrer.output_hash: referrer for referrer, _ in found}
        for output_hash, path in doomed.items():
            if output_hash in pinned:
                raise ConflictError(f"{path.absolute(store.store_dir)} is pinned by {pinned[output_hash]}: remove that pin first")
        removed = await removal.remove(doomed, unused_since=None, ignore_references=referrers is Referrers.IGNORE, guard=guard)
        gone += [path for output_hash, path in doomed.items() if output_hash in removed]
        wanted = {each: path for each, path in wanted.items() if await kept_path(store, each) is not None}
        if not wanted:
            return gone
    left = next(iter(wanted.values())).absolute(store.store_dir)
    raise ConflictError(f"{left} is still there: others put, or pin, paths that need it all the time")


async def referrers_of(
    path_infos: PathInfoService, output_hashes: Collection[bytes], *, all_of_them: bool
) -> list[tuple[StorePath, StorePath]]:
    """The paths that refer to others, but for themselves and each other: each with one to which it refers.

    `all_of_them`: also those that refer to the referrers, and so on. Some 300 bytes of memory a path of the store that has
    references.
    """
    yielder = Yielder()
    known: dict[bytes, list[StorePath]] = {}
    found: list[tuple[StorePath, StorePath]] = []
    async for path_info in path_infos.list():
        path = path_info.store_path
        for each in path_info.references:
            if each.output_hash in output_hashes and path.output_hash not in output_hashes:
                found.append((path, each))
                break
        if all_of_them:
            for each in path_info.references:
                known.setdefault(each.output_hash, []).append(path)
        await yielder.step()
    seen = {path.output_hash for path, _ in found}
    for path, _ in found:  # which grows
        for referrer in known.get(path.output_hash, ()):
            if referrer.output_hash not in seen and referrer.output_hash not in output_hashes:
                seen.add(referrer.output_hash)
                found.append((referrer, path))
    return found


def _refuse_needed(store: Store, found: Sequence[tuple[StorePath, StorePath]]) -> None:
    if found:
        needed = found[0][1]
        by = [str(referrer) for referrer, to in found if to == needed]
        more = f" and {len(by) - _MOST_NAMED} more" if len(by) > _MOST_NAMED else ""
        raise ConflictError(f"{needed.absolute(store.store_dir)} is needed by {', '.join(by[:_MOST_NAMED])}{more}")
