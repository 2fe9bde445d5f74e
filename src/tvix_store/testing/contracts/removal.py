"""The contract of Removal."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

from tvix_store.errors import IncompleteError
from tvix_store.model.path_info import PathInfo
from tvix_store.services.removal import Guard, used_key, used_records
from tvix_store.services.store import Store
from tvix_store.testing.contracts.path_infos import path, stored_file

NOW = 500_000
"""An hour."""


def hash_of(name: str) -> bytes:
    return path(name).output_hash


async def put(store: Store, name: str, *references: str, used: int | None = None, requires: bool = False) -> PathInfo:
    """Put a path, which may have been used in an hour. `requires`: only if its references are there."""
    info = replace(await stored_file(store, name), references=tuple(sorted(map(path, references))))
    if used is not None:
        assert store.records is not None
        await store.records.put(used_records({info.store_path.output_hash: used}))
    return await store.path_infos.put(info, requires=info.references if requires else ())


async def remove(
    store: Store,
    *names: str,
    unused_since: int | None = NOW,
    ignore_references: bool = False,
    guard: Guard | None = None,
) -> set[str]:
    """Remove paths; the names of those that are gone, all of which were named."""
    assert store.removal is not None
    hashes = [hash_of(name) for name in names]
    gone = await store.removal.remove(hashes, unused_since=unused_since, ignore_references=ignore_references, guard=guard)
    known = {hash_of(name): name for name in names}
    return {known[each] for each in gone}


async def listed(store: Store) -> set[str]:
    return {info.store_path.name async for info in store.path_infos.list()}


@pytest.mark.asyncio
class RemovalContract:
    """Subclasses give a fixture `store`: a new, empty store with `records`, whose `removal` is not None."""

    async def test_what_is_removed_is_gone(self, store: Store) -> None:
        kept, gone = await put(store, "kept"), await put(store, "gone", used=NOW - 1)
        assert await remove(store, "gone", "never-there") == {"gone"}
        assert await store.path_infos.get(hash_of("gone")) is None
        assert await store.path_infos.get_many([hash_of("gone"), hash_of("kept")]) == {hash_of("kept"): kept}
        assert await store.path_infos.existing([hash_of("gone"), hash_of("kept")]) == {hash_of("kept"): kept.store_path}
        assert await listed(store) == {"kept"}
        assert store.records is not None
        assert await store.records.get(used_key(hash_of("gone"))) is None
        assert await remove(store, "gone") == set()
        assert await store.nar.calculate(gone.node) == gone.nar, "content stays until it is collected"

    async def test_what_is_put_again_is_as_it_is_put(self, store: Store) -> None:
        first = await put(store, "again")
        await remove(store, "again")
        other = replace(await stored_file(store, "again", b"other content"), deriver=path("deriver"))
        assert await store.path_infos.put(other) == other != first
        assert await store.path_infos.get(hash_of("again")) == other
        assert await listed(store) == {"again"}
        assert await remove(store, "again") == {"again"}

    async def test_what_was_used_stays(self, store: Store) -> None:
        for name, hour in (("long-ago", NOW - 1), ("now", NOW), ("later", NOW + 1)):
            await put(store, name, used=hour)
        assert await remove(store, "long-ago", "now", "later") == {"long-ago"}
        assert await remove(store, "now", "later", unused_since=NOW + 1) == {"now"}

    async def test_what_a_path_needs_that_stays_stays_as_well(self, store: Store) -> None:
        await put(store, "far")
        await put(store, "near", "far")
        await put(store, "needs", "near")
        assert await remove(store, "far", "near") == set()
        assert await remove(store, "far", "near", "needs", unused_since=NOW) == {"far", "near", "needs"}

    async def test_what_a_used_path_needs_stays_as_well(self, store: Store) -> None:
        await put(store, "far")
        await put(store, "near", "far")
        await put(store, "needs", "near", used=NOW)
        await put(store, "also", "far")
        assert await remove(store, "far", "near", "needs", "also") == {"also"}

    async def test_a_path_that_refers_to_itself_can_be_removed(self, store: Store) -> None:
        await put(store, "self", "self")
        assert await remove(store, "self") == {"self"}

    async def test_a_put_that_requires_what_was_removed_is_refused(self, store: Store) -> None:
        reference = await put(store, "reference")
        info = replace(await stored_file(store, "needs"), references=(reference.store_path,))
        requires = [reference.store_path]
        await remove(store, "reference")
        with pytest.raises(IncompleteError, match=r"needs refers to .*, not in the store; put that first"):
            await store.path_infos.put(info, requires=requires)
        assert await listed(store) == set()
        await put(store, "reference")
        assert await store.path_infos.put(info, requires=requires) == info
        assert await listed(store) == {"needs", "reference"}

    async def test_what_was_removed_counts_as_what_never_was(self, store: Store) -> None:
        """Who does not require a reference may put a path without it: another store has that, for example."""
        await put(store, "reference")
        await remove(store, "reference")
        await put(store, "needs", "reference")
        await put(store, "reference")
        assert await remove(store, "reference") == set()

    async def test_nothing_to_remove_is_nothing_removed(self, store: Store) -> None:
        await put(store, "kept")
        assert await remove(store) == set()
        assert await listed(store) == {"kept"}

    async def test_many_paths_are_removed(self, store: Store) -> None:
        names = [f"chain-{n}" for n in range(300)]
        await put(store, names[0])
        for before, name in pairwise(names):
            await put(store, name, before)
        assert await remove(store, *names[:-1]) == set()
        assert await remove(store, *names[100:]) == set(names[100:])
        assert await listed(store) == set(names[:100])

    async def test_a_path_can_be_removed_however_lately_it_was_used(self, store: Store) -> None:
        await put(store, "far", used=NOW)
        await put(store, "near", "far", used=NOW + 1)
        assert await remove(store, "far", unused_since=None) == set(), "another path refers to it"
        assert await remove(store, "far", "near", unused_since=None) == {"far", "near"}

    async def test_a_path_can_be_removed_though_others_refer_to_it(self, store: Store) -> None:
        await put(store, "far")
        await put(store, "near", "far")
        needs = await put(store, "needs", "near", "far")
        assert await remove(store, "far", "near", unused_since=None, ignore_references=True) == {"far", "near"}
        assert await listed(store) == {"needs"}
        assert await store.path_infos.get(hash_of("needs")) == needs
        await put(store, "used", used=NOW)
        assert await remove(store, "used", "needs", ignore_references=True) == {"needs"}

    async def test_paths_that_refer_to_each_other_go_together(self, store: Store) -> None:
        await put(store, "behind")
        await put(store, "one", "other", "behind")
        await put(store, "other", "one")
        await put(store, "alone")
        assert await remove(store, "one", "behind", "alone") == {"alone"}
        assert await remove(store, "one", "other", "behind") == {"one", "other", "behind"}

    async def test_nothing_goes_where_the_guard_has_changed(self, store: Store) -> None:
        await put(store, "path")
        assert store.records is not None
        for value, other in ((None, b"1"), (b"1", None), (b"1", b"2")):
            if value is not None:
                await store.records.put({b"guard": value})
            assert await remove(store, "path", guard=Guard(b"guard", other)) == set()
        assert await remove(store, "path", guard=Guard(b"guard", b"1")) == {"path"}
        await put(store, "path")
        assert await remove(store, "path", guard=Guard(b"no guard", None)) == {"path"}
