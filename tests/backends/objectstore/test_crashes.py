"""What is left of a process that dies between two requests, and of processes that work against each other."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from typing import TypeAlias

import pytest
from obstore.store import MemoryStore

from tests.backends.objectstore.faulty_bucket import Died, FaultyBucket, Turns
from tvix_store.backends.objectstore import removal, store_in
from tvix_store.backends.objectstore.presence import Presence
from tvix_store.backends.objectstore.removal import BucketRemoval
from tvix_store.backends.objectstore.settings import Settings
from tvix_store.errors import IncompleteError
from tvix_store.model.nodes import SymlinkNode
from tvix_store.model.path_info import PathInfo
from tvix_store.operations.nars.calculate import calculate_nar
from tvix_store.services.reference_order import References
from tvix_store.services.removal import Guard, used_records
from tvix_store.services.store import Store
from tvix_store.testing.content import noise, put_tree
from tvix_store.testing.contracts.nar import TREE
from tvix_store.testing.contracts.path_infos import path, signature, stored_file
from tvix_store.testing.contracts.removal import NOW, hash_of, put, remove
from tvix_store.testing.trees import Tree, TreeFile

PUSHED: Tree = {b"large": TreeFile(noise(400_000, "crash")), b"tree": TREE, b"link": SymlinkNode(b"large")}


def store(bucket: FaultyBucket) -> Store:
    return store_in(bucket, Settings(layout="snix"))


async def whole_paths(opened: Store) -> set[str]:
    """The names of all paths. Each is whole."""
    names = set()
    async for info in opened.path_infos.list():
        assert await calculate_nar(opened.blobs, opened.directories.tree(info.node)) == info.nar
        references = [each.output_hash for each in info.references]
        assert len(await opened.path_infos.existing(references)) == len(references)
        names.add(info.store_path.name)
    return names


Act: TypeAlias = Callable[[Store], Awaitable[object]]


async def dies_everywhere(before: Act, act: Act) -> list[set[str]]:
    """The paths that are there when a process has died at each of its requests, each of them without and with that request."""
    left: list[set[str]] = []
    for dies_at in range(1000):
        for does_it in (False, True):
            memory = MemoryStore()
            await before(store(FaultyBucket(memory)))
            bucket = FaultyBucket(memory, dies_at, does_it=does_it)
            try:
                await act(store(bucket))
            except (Died, BaseExceptionGroup):
                pass
            else:
                return left
            left.append(await whole_paths(store(FaultyBucket(memory))))
    raise AssertionError("it never came to its end")


async def push(opened: Store) -> None:
    root = await put_tree(opened, PUSHED)
    await opened.path_infos.put(PathInfo(path("pushed"), root, await opened.nar.calculate(root)))


async def nothing(opened: Store) -> None:
    pass


async def test_a_push_that_dies_leaves_a_whole_path_or_none() -> None:
    left = await dies_everywhere(nothing, push)
    assert len(left) > 40
    assert left[0] == set()
    assert left[-1] in (set(), {"pushed"})


async def test_a_push_that_died_can_be_done_again() -> None:
    for dies_at in range(0, 24, 3):
        memory = MemoryStore()
        with pytest.raises((Died, BaseExceptionGroup)):
            await push(store(FaultyBucket(memory, dies_at)))
        await push(store(FaultyBucket(memory)))
        assert await whole_paths(store(FaultyBucket(memory))) == {"pushed"}


async def test_a_removal_that_dies_leaves_complete_closures_and_the_next_one_ends_it() -> None:
    async def before(opened: Store) -> None:
        await put(opened, "far")
        await put(opened, "near", "far")
        await put(opened, "kept")

    async def act(opened: Store) -> None:
        await remove(opened, "far", "near", unused_since=None)

    for left in await dies_everywhere(before, act):
        assert "kept" in left
        assert left <= {"kept", "near", "far"}


@pytest.mark.parametrize("calculated", [False, True])
async def test_paths_whose_nar_was_calculated_are_paths_as_well(calculated: bool) -> None:
    opened = store(FaultyBucket(MemoryStore()))
    needed, needs = [await stored_file(opened, name) for name in ("needed", "needs")]
    needs = replace(needs, references=(needed.store_path,))
    for info in (needed, needs):
        await opened.path_infos.put(info, requires=info.references, calculated=calculated)
    assert await remove(opened, "needed", unused_since=None) == set()
    assert await remove(opened, "needed", "needs", unused_since=None) == {"needed", "needs"}
    assert await whole_paths(opened) == set()


async def test_a_put_that_required_what_is_removed_before_it_is_written_takes_itself_back() -> None:
    memory = MemoryStore()
    others, bucket = store(FaultyBucket(memory)), FaultyBucket(memory)
    await put(others, "reference")
    info = replace(await stored_file(others, "needs"), references=(path("reference"),))
    bucket.before_create = lambda: remove(others, "reference")
    with pytest.raises(IncompleteError):
        await store(bucket).path_infos.put(info, requires=info.references)
    assert await whole_paths(others) == set()


async def test_a_put_takes_nothing_back_that_another_was_told_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = MemoryStore()
    await put(store(FaultyBucket(memory)), "reference")
    info = replace(await stored_file(store(FaultyBucket(memory)), "needs"), references=(path("reference"),))
    written, condemned = asyncio.Event(), asyncio.Event()
    advance, has_changed, condemn = Presence.advance, Presence.has_changed, BucketRemoval._condemned
    first: list[asyncio.Task[PathInfo]] = []

    async def put_once() -> PathInfo:
        return await store(FaultyBucket(memory)).path_infos.put(info, requires=info.references)

    async def put_twice_and_condemn(removal: BucketRemoval, doomed: References, guard: Guard | None) -> list[bytes]:
        first.append(asyncio.create_task(put_once()))
        await written.wait()
        assert await put_once() == info  # acknowledged: nothing has changed yet
        return await condemn(removal, doomed, guard)

    async def advance_and_wait(presence: Presence) -> float:
        at = await advance(presence)
        if first:
            condemned.set()
            await asyncio.wait(first)
        return at

    async def wait_and_look(presence: Presence, epoch: bytes) -> bool:
        monkeypatch.setattr(Presence, "has_changed", has_changed)
        written.set()
        await condemned.wait()
        return await has_changed(presence, epoch)

    monkeypatch.setattr(BucketRemoval, "_condemned", put_twice_and_condemn)
    monkeypatch.setattr(Presence, "advance", advance_and_wait)
    monkeypatch.setattr(Presence, "has_changed", wait_and_look)
    async with asyncio.timeout(10):
        assert await remove(store(FaultyBucket(memory)), "reference") == set()
    with pytest.raises(IncompleteError):
        await first[0]
    assert await whole_paths(store(FaultyBucket(memory))) == {"reference", "needs"}


async def test_what_a_removal_has_left_condemned_comes_back_with_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = MemoryStore()
    await put(store(FaultyBucket(memory)), "far")
    await put(store(FaultyBucket(memory)), "near", "far")
    bucket = FaultyBucket(memory, 11)
    with pytest.raises(Died):
        await remove(store(bucket), "far", "near", unused_since=None)
    assert await whole_paths(store(FaultyBucket(memory))) == set(), "both are condemned"
    monkeypatch.setattr(removal, "_GIVEN_UP_AFTER", -60.0)
    assert await remove(store(FaultyBucket(memory)), "another") == set()
    assert await whole_paths(store(FaultyBucket(memory))) == {"near", "far"}


@pytest.mark.parametrize("seed", range(40, 60))
async def test_a_path_and_what_it_requires_are_removed_together_or_not_at_all(seed: int) -> None:
    """One process removes a path. Another one puts a path that requires it, and a third one notes its use, and looks then."""
    memory, turns = MemoryStore(), Turns(seed)
    remover, putter, user = (store(FaultyBucket(memory, turns=turns)) for _ in range(3))
    records = user.records
    assert records is not None
    await put(store(FaultyBucket(memory)), "reference")
    info = replace(await stored_file(store(FaultyBucket(memory)), "needs"), references=(path("reference"),))

    async def put_it() -> None:
        for _ in range(seed % 12):
            await putter.check()
        with suppress(IncompleteError):
            await putter.path_infos.put(info, requires=info.references)

    async def use_it() -> bool:
        for _ in range(seed % 17):
            await user.check()
        await records.put(used_records({hash_of("reference"): NOW}))
        return await user.path_infos.get(hash_of("reference")) is not None

    giving = asyncio.create_task(turns.give())
    removed, was_there, _ = await asyncio.gather(remove(remover, "reference"), use_it(), put_it())
    giving.cancel()
    assert not (removed and was_there)
    await whole_paths(store(FaultyBucket(memory)))


async def test_signatures_that_several_processes_add_at_once_all_arrive() -> None:
    memory, turns = MemoryStore(), Turns(0)
    opened = [store(FaultyBucket(memory, turns=turns)) for number in range(8)]
    info = await stored_file(store(FaultyBucket(memory)), "signed")
    giving = asyncio.create_task(turns.give())
    added = {signature(f"key-{n}") for n in range(8)}
    puts = (each.path_infos.put(replace(info, signatures=(one,))) for each, one in zip(opened, added, strict=True))
    await asyncio.gather(*puts)
    got = await opened[0].path_infos.get(info.store_path.output_hash)
    giving.cancel()
    assert got is not None
    assert set(got.signatures) == added
