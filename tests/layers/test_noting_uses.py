"""A store notes uses from the moment on at which unused paths are removed from it, and pays nothing before."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from types import CoroutineType

import pytest

from tvix_store.backends.local import open_store as open_local
from tvix_store.config import open_store
from tvix_store.layers import noting_uses as module
from tvix_store.layers import uses as uses_module
from tvix_store.layers.noting_uses import noting_uses
from tvix_store.layers.read_only import read_only
from tvix_store.operations.collection.hours import DAILY, Hours
from tvix_store.services.removal import USED, read_hour
from tvix_store.services.store import Store
from tvix_store.testing.contracts.path_infos import path
from tvix_store.testing.contracts.removal import hash_of, listed, put, remove

BEGIN = 500_000 * 3600.0


class Clock:
    seconds = BEGIN

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
async def inner(tmp_path: Path) -> AsyncIterator[Store]:
    async with await open_local(tmp_path / "store") as store:
        yield store


async def nothing() -> None:
    pass


async def noting(inner: Store, clock: Clock | None = None) -> Store:
    return await noting_uses(replace(inner, close=nothing), clock or Clock())


def hours(store: Store, clock: Clock | None = None) -> Hours:
    assert store.records is not None
    return Hours(store.records, clock or Clock(), DAILY)


async def uses(store: Store) -> dict[bytes, int]:
    assert store.records is not None
    return {key[len(USED) :]: read_hour(value) async for key, value in store.records.list(USED)}


async def use(store: Store, name: str, way: str) -> None:
    key = hash_of(name)
    match way:
        case "get":
            assert await store.path_infos.get(key)
        case "get_many":
            assert await store.path_infos.get_many([key])
        case "existing":
            assert await store.path_infos.existing([key])
        case "put":
            await put(store, name)


WAYS = pytest.mark.parametrize("way", ["get", "get_many", "existing", "put"])


@WAYS
async def test_a_store_that_is_not_collected_notes_nothing(inner: Store, way: str) -> None:
    async with await noting(inner) as store:
        await put(store, "path")
        await use(store, "path", way)
        question = store.path_infos.get(hash_of("path"))
        assert isinstance(question, CoroutineType)
        assert question.__qualname__ == "LocalPathInfos.get", "no layer's own coroutine"
        await question
    assert [each async for each in inner.records.list()] == []  # type: ignore[union-attr]


@WAYS
async def test_a_store_that_is_collected_notes_each_use(inner: Store, way: str) -> None:
    await hours(inner).look()
    await put(inner, "path")
    await put(inner, "other")
    async with await noting(inner) as store:
        assert await listed(store) == {"path", "other"}
        await use(store, "path", way)
        assert await store.path_infos.get(hash_of("absent")) is None
    assert await uses(inner) == {hash_of("path"): 24}


async def test_a_process_that_runs_notes_uses_once_a_collection_has_begun(inner: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_AGAIN", 0.01)
    await put(inner, "path")
    async with await noting(inner) as store:
        await store.path_infos.get(hash_of("path"))
        await hours(inner).look()
        await put(store, "new")
        assert await uses(inner) == {hash_of("new"): 24}, "a put looks by itself"
        await asyncio.sleep(0.1)
        await store.path_infos.get(hash_of("path"))
    assert await uses(inner) == {hash_of("new"): 24, hash_of("path"): 24}


async def test_uses_are_noted_again_in_the_next_hour(inner: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where nobody looks at the hours but a collection once a day."""
    monkeypatch.setattr(module, "_AGAIN", 0.01)
    monkeypatch.setattr(uses_module, "_PAUSE", 0.01)
    clock = Clock()
    await hours(inner, clock).look()
    await put(inner, "path")
    async with await noting(inner, clock) as store:
        for hour in (24, 25, 40):
            clock.seconds = BEGIN + (hour - 24) * 3600
            await asyncio.sleep(0.1)
            for _ in range(3):
                await store.path_infos.get(hash_of("path"))
            await asyncio.sleep(0.1)
            assert await uses(inner) == {hash_of("path"): hour}
    await hours(inner, clock).look()
    assert await hours(inner, clock).now() == 40


async def test_a_path_that_is_asked_for_by_very_many_others_is_noted_again(inner: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """So the memory has a bound."""
    monkeypatch.setattr(uses_module, "_MOST_NOTED", 2)
    await hours(inner).look()
    for name in ("a", "b", "c", "d"):
        await put(inner, name)
    async with await noting(inner) as store:
        for name in ("a", "b", "c", "d"):
            await store.path_infos.get(hash_of(name))
    assert len(await uses(inner)) == 4


async def test_the_store_keeps_its_powers_and_removes_by_its_uses(inner: Store) -> None:
    await hours(inner).look()
    async with await noting(inner) as store:
        assert store.removal is not None
        assert store.named_paths is not None
        assert store.statistics is not None
        await put(store, "path")
        assert await remove(store, "path", unused_since=24) == set()
        assert await remove(store, "path", unused_since=25) == {"path"}


async def test_a_store_that_can_remove_nothing_stays_as_it_is(inner: Store) -> None:
    for store in (read_only(inner), replace(inner, removal=None), inner.with_services(records=inner.records)):
        assert await noting_uses(store) is store


async def test_stores_that_are_opened_by_their_address_note_uses(tmp_path: Path) -> None:
    async with await open_store(str(tmp_path / "store")) as store:
        await put(store, "path")
        assert await uses(store) == {}
        await hours(store).look()
    async with await open_store(str(tmp_path / "store")) as store:
        await store.path_infos.get(path("path").output_hash)
    async with await open_store(str(tmp_path / "store")) as store:
        assert await uses(store) == {hash_of("path"): 24}
