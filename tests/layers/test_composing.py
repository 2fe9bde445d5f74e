"""A store out of offers: which services, powers and checks it has, or what is missing."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import pytest

from tvix_store.backends import memory
from tvix_store.errors import UnavailableError, UnsupportedError
from tvix_store.layers.composed_statistics import ComposedStatistics
from tvix_store.layers.composing import composed
from tvix_store.layers.staging_beside import StagingBeside
from tvix_store.model.digest import Digest
from tvix_store.model.nodes import FileNode
from tvix_store.model.path_info import NarFacts, PathInfo
from tvix_store.model.store_path import StorePath
from tvix_store.services.offer import POWERS, Offer, Service
from tvix_store.services.store import Store
from tvix_store.testing.content import put_file

PATH_INFO = PathInfo(StorePath(bytes(20), "x"), FileNode(Digest(bytes(32)), 1), NarFacts(1, bytes(32)))


async def offers(names: str) -> list[Store]:
    """A store in memory for each name; the same name is the same store."""
    made = {name: replace(await memory.open_store(), name=name) for name in names}
    return [made[name] for name in names]


@pytest.mark.parametrize(("names", "synced"), [("aac", "a"), ("abc", "ab"), ("baa", "b"), ("aba", "b"), ("aaa", "")])
async def test_a_path_info_waits_until_the_other_stores_have_synced_its_content(names: str, synced: str) -> None:
    calls: list[str] = []

    def syncing(offer: Store) -> Store:
        async def sync() -> None:
            calls.append(offer.name)

        return replace(offer, sync=sync)

    made = {offer.name: syncing(offer) for offer in await offers(names)}
    store = composed(*(made[name] for name in names))
    await store.path_infos.put(PATH_INFO)
    assert sorted(calls) == list(synced)


async def test_each_service_has_the_check_of_its_own_store() -> None:
    def sick(offer: Store) -> Store:
        async def check() -> None:
            raise UnavailableError(offer.name)

        return replace(offer, check=check)

    store = composed(*map(sick, await offers("abc")))
    assert store.service_checks
    for check, name in zip(store.service_checks, "abc", strict=True):
        with pytest.raises(UnavailableError, match=name):
            await check()
    with pytest.raises(UnavailableError):
        await store.check()


async def test_each_store_is_closed_once() -> None:
    closed: list[str] = []

    def closing(offer: Store) -> Store:
        async def close() -> None:
            closed.append(offer.name)

        return replace(offer, close=close)

    first, second = map(closing, await offers("ab"))
    await composed(first, first, second).close()
    assert sorted(closed) == ["a", "b"]


@pytest.mark.parametrize("names", ["aaa", "aab", "aba", "baa", "abc"])
async def test_a_power_is_there_if_all_its_services_come_from_one_offer(names: str) -> None:
    chosen = [replace(each, statistics=object(), frames=object()) for each in await offers(names)]  # type: ignore[arg-type]
    made = {offer.name: offer for offer in chosen}
    blobs, directories, path_infos = (made[name] for name in names)
    store = composed(blobs, directories, path_infos)
    of: dict[Service, Offer | None] = {"blobs": blobs, "directories": directories, "path_infos": path_infos, "records": path_infos}
    of["nar"] = blobs if blobs is directories else None
    assert of.keys() == set(get_args(Service))
    for power, services in POWERS.items():
        owners = {id(of[service]): of[service] for service in services}
        owner = owners.popitem()[1] if len(owners) == 1 else None
        if power == "known_nars" and owner is None:
            assert store.known_nars is not None  # NARs are calculated here
            continue
        if power == "statistics" and owner is None:
            assert isinstance(store.statistics, ComposedStatistics)
            continue
        if power == "staging" and names == "aab":
            assert isinstance(store.staging, StagingBeside)  # its records stand elsewhere
            continue
        assert getattr(store, power) is (None if owner is None else getattr(owner, power)), power


async def test_nars_are_calculated_of_the_content_that_was_chosen() -> None:
    first, second = await offers("ab")
    store = composed(first, second, second)
    node = await put_file(first.blobs, b"content")
    assert (await store.nar.calculate(node)).size == 120


async def test_what_is_missing_is_told_in_one_line() -> None:
    whole, other = await offers("ab")
    castore = Offer(name="castore://x", blobs=whole.blobs, directories=whole.directories)
    with pytest.raises(UnsupportedError) as caught:
        composed(castore, castore, castore)
    assert str(caught.value) == "castore://x has no path infos: give the address of a store that has them"
    with pytest.raises(UnsupportedError, match=r"^nothing:// has no blobs; castore://x has no path infos: give the address"):
        composed(Offer(name="nothing://"), castore, castore)
    assert composed(castore, castore, other).path_infos is not None
