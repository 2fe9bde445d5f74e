"""What nobody uses goes, and nothing else; a dry run says so before."""

from __future__ import annotations

import random

import pytest

from tests.operations.collection.paths import Collected
from tvix_store.backends.memory import open_store
from tvix_store.errors import CorruptError, DeniedError, UnsupportedError
from tvix_store.layers.read_only import read_only
from tvix_store.operations.collection.pins import Pins
from tvix_store.operations.collection.unused import last_uses, remove_paths, remove_unused
from tvix_store.services.removal import USED, used_key
from tvix_store.testing.contracts.removal import hash_of


async def test_what_was_used_or_put_in_the_time_that_is_kept_stays(collected: Collected) -> None:
    for name, used in (("a", 0), ("b", 10), ("c", 11), ("d", 99)):
        await collected.put(name, used=used)
    assert await collected.run(10) == {"c", "d"}
    assert await collected.listed() == {"a", "b"}


async def test_what_a_used_path_needs_stays(collected: Collected) -> None:
    await collected.put("far", used=90)
    await collected.put("near", "far", used=80)
    await collected.put("needs", "near", used=5)
    await collected.put("alone", "far", used=70)
    assert await collected.run(10) == {"alone"}
    await collected.let_pass(6)
    assert await collected.run(10) == {"needs", "near", "far"}


async def test_the_time_of_paths_without_a_use_begins_now(collected: Collected) -> None:
    await collected.put("old", used=None)
    for hours, gone in ((0, set()), (24, set()), (1, {"old"})):
        await collected.let_pass(hours)
        assert await collected.run(24) == gone


async def test_a_pinned_path_stays_with_what_it_needs(collected: Collected) -> None:
    await collected.put("far", used=90)
    await collected.put("near", "far", used=90)
    await collected.put("alone", "far", used=90)
    await collected.pin("release", "near")
    assert await collected.run(10) == {"alone"}
    await collected.let_pass(11)
    assert await collected.run(10) == set()
    await collected.pins.remove("release")
    assert await collected.run(10) == {"near", "far"}


async def test_a_path_that_is_pinned_while_others_are_removed_stays(collected: Collected, monkeypatch: pytest.MonkeyPatch) -> None:
    await collected.put("a", used=50)
    await collected.put("b", used=50)
    inner = Pins.pinned

    async def then_a_pin(self: Pins, now: int) -> dict[bytes, str]:
        found = await inner(self, now)
        if not found:
            await collected.pin("late", "a")
        return found

    monkeypatch.setattr(Pins, "pinned", then_a_pin)
    now = await collected.hours.now()
    assert collected.names(await remove_unused(collected.store, now=now, keep_for=10)) == {"b"}
    await collected.put("c")
    monkeypatch.setattr(Pins, "pinned", inner)
    await collected.pins.remove("late")
    found = await (await last_uses(collected.store, now=now)).ordered()
    monkeypatch.setattr(Pins, "pinned", then_a_pin)
    assert {each.hour for each in found} == {now}, "all of them were used in this hour"
    assert collected.names(await remove_paths(collected.store, found, now=now)) == {"c"}


async def test_nothing_goes_where_a_pin_is_damaged(collected: Collected) -> None:
    await collected.put("old", used=90)
    await collected.records.put({b"pin:x/0": b"bad"})
    with pytest.raises(CorruptError, match="the record of a pin"):
        await remove_unused(collected.store, now=await collected.hours.now(), keep_for=10)
    assert await collected.listed() == {"old"}


async def test_uses_of_what_is_not_there_are_dropped(collected: Collected) -> None:
    await collected.put("gone", used=50)
    await collected.put("new")
    assert collected.store.removal is not None
    await collected.records.put({USED + b"stray": b"\1\0\0\0", USED + b"bad": b"bad"})
    assert await collected.run(10) == {"gone"}
    left = [key async for key, _ in collected.records.list(USED)]
    assert sorted(left) == sorted([used_key(hash_of("new")), USED + b"bad"])


async def test_the_least_recently_used_come_first_and_each_before_what_it_needs(collected: Collected) -> None:
    await collected.put("far", used=90)
    await collected.put("near", "far", used=80)
    await collected.put("needs", "near", "far", used=20)
    await collected.put("alone", "far", used=60)
    await collected.put("old", used=50)
    await collected.put("kept", used=99)
    await collected.put("b", used=99)
    await collected.put("a", "b", used=99)
    await collected.put("c", used=None)
    await collected.pin("one", "kept")
    now = await collected.hours.now()
    order = [
        (*collected.names([each.output_hash]), now - each.hour)
        for each in await (await last_uses(collected.store, now=now)).ordered()
    ]
    assert order == [("a", 99), ("b", 99), ("alone", 60), ("old", 50), ("needs", 20), ("near", 20), ("far", 20), ("c", 0)]


async def test_the_first_of_the_least_recently_used_can_go_without_the_others(collected: Collected) -> None:
    generator = random.Random(13)
    names = [f"path-{number}" for number in range(40)]
    for at, name in enumerate(names):
        references = generator.sample(names[:at], min(at, generator.randrange(4)))
        await collected.put(name, *references, used=generator.randrange(50))
    now = await collected.hours.now()
    while left := await (await last_uses(collected.store, now=now)).ordered():
        some = left[: generator.randrange(1, 6)]
        assert await remove_paths(collected.store, some, now=now) == {each.output_hash for each in some}


async def test_what_was_used_or_pinned_since_does_not_go(collected: Collected) -> None:
    for name in ("a", "b", "c"):
        await collected.put(name, used=50)
    now = await collected.hours.now()
    found = await (await last_uses(collected.store, now=now)).ordered()
    await collected.put("b")
    await collected.pin("pin", "c")
    assert collected.names(await remove_paths(collected.store, found, now=now)) == {"a"}


async def test_paths_in_a_circle_go_together(collected: Collected) -> None:
    await collected.put("a", "b", used=50)
    await collected.put("b", "a", "c", used=60)
    await collected.put("c", used=70)
    assert await collected.run(55) == set()
    assert await collected.run(45) == {"a", "b", "c"}


async def test_random_stores_lose_what_a_dry_run_has_said(collected: Collected) -> None:
    generator = random.Random(7)
    names = [f"path-{number}" for number in range(40)]
    for _ in range(6):
        there = await collected.listed()
        for name in sorted(set(generator.sample(names, 25)) - there):
            used = generator.choice((None, generator.randrange(60)))
            await collected.put(name, *generator.sample(names, generator.randrange(3)), used=used)
        for name in generator.sample(sorted(await collected.listed()), 2):
            await collected.pin(f"pin-{name}", name)
        pinned = await collected.pinned()
        await collected.run(generator.randrange(40))
        assert pinned <= await collected.listed()
        await collected.let_pass(generator.randrange(20))


async def test_a_store_that_can_not_remove_says_so() -> None:
    async with await open_store() as store:
        with pytest.raises(DeniedError, match="nothing is removed"):
            await remove_unused(read_only(store), now=0, keep_for=1)
        with pytest.raises(UnsupportedError, match="use the address of the store itself"):
            await remove_unused(store.with_services(path_infos=store.path_infos), now=0, keep_for=1)
