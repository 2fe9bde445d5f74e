"""Pins keep what they name, and no longer than they are told to."""

from __future__ import annotations

import pytest

from tests.operations.collection.paths import Collected
from tvix_store.errors import CorruptError, InvalidError, NotFoundError
from tvix_store.operations.collection import pins as pins_module
from tvix_store.operations.collection.pins import Keep, Pins
from tvix_store.testing.contracts.removal import hash_of, remove


async def test_all_revisions_stay_where_nobody_says_otherwise(collected: Collected) -> None:
    for name in ("a", "b", "c"):
        await collected.put(name)
        await collected.pin("main", name)
        await collected.let_pass(24 * 40)
    assert await collected.pinned() == {"a", "b", "c"}
    found = [each async for each in collected.pins.revisions("main")]
    assert [each.number for each in found] == [3, 2, 1]
    assert [each.made for each in found] == [int(collected.clock) - 24 * 40 * 3600 * n for n in (1, 2, 3)]


async def test_so_many_of_the_newest_revisions_stay(collected: Collected) -> None:
    for name in ("a", "b", "c", "d"):
        await collected.put(name)
        await collected.pin("main", name, keep=Keep(revisions=2))
    assert await collected.pinned() == {"c", "d"}
    await collected.pin("main", "a", keep=Keep(revisions=3))
    assert await collected.pinned() == {"c", "d", "a"}, "what was dropped does not come back"
    assert [each.number async for each in collected.pins.revisions("main")] == [5, 4, 3]


async def test_revisions_stay_for_days_and_the_newest_one_always(collected: Collected) -> None:
    keep = Keep(days=3)
    for name in ("a", "b"):
        await collected.put(name)
        await collected.pin("main", name, keep=keep)
        await collected.let_pass(24)
    assert await collected.pinned() == {"a", "b"}
    await collected.let_pass(24)
    assert await collected.pinned() == {"a", "b"}
    await collected.let_pass(1)
    assert await collected.pinned() == {"b"}
    await collected.let_pass(24 * 50)
    assert await collected.pinned() == {"b"}


async def test_a_clock_that_is_wrong_ends_no_pin(collected: Collected) -> None:
    for name in ("a", "b"):
        await collected.put(name)
        await collected.pin("main", name, keep=Keep(days=3))
    collected.clock += 24 * 365 * 80 * 3600
    await collected.hours.look()
    assert await collected.pinned() == {"a", "b"}


async def test_with_both_a_revision_stays_that_either_keeps(collected: Collected) -> None:
    for name in ("a", "b", "c"):
        await collected.put(name)
        await collected.pin("main", name, keep=Keep(days=2, revisions=2))
        await collected.let_pass(24)
    assert await collected.pinned() == {"b", "c"}
    await collected.let_pass(24 * 10)
    assert await collected.pinned() == {"b", "c"}


async def test_a_pin_has_many_paths_and_its_own_name(collected: Collected) -> None:
    await collected.put("a")
    await collected.put("b")
    await collected.pin("one", "a", "b", "a")
    await collected.pin("one+more", "b")
    assert {each.name: len(each.paths) async for each in collected.pins.revisions()} == {"one": 2, "one+more": 1}
    await collected.pins.remove("one")
    assert await collected.pinned() == {"b"}
    with pytest.raises(NotFoundError, match="pin one is not in the store"):
        await collected.pins.remove("one")


async def test_what_is_not_there_is_not_pinned(collected: Collected) -> None:
    await collected.put("a")
    with pytest.raises(NotFoundError, match=r"store path /nix/store/\S+-b is not in the store"):
        await collected.pin("main", "a", "b")
    assert await collected.pinned() == set()


async def test_a_pin_of_what_goes_meanwhile_is_taken_back(collected: Collected, monkeypatch: pytest.MonkeyPatch) -> None:
    await collected.put("a", used=50)
    await collected.put("b", used=50)
    await collected.pin("main", "b")
    inner = Pins.put

    async def late(self: Pins, *arguments: object) -> object:
        assert await remove(collected.store, "a") == {"a"}
        return await inner(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Pins, "put", late)
    with pytest.raises(NotFoundError):
        await collected.pin("main", "a")
    assert [each.number async for each in collected.pins.revisions("main")] == [1]


async def test_a_removal_that_did_not_see_a_pin_removes_nothing(collected: Collected) -> None:
    await collected.put("a", used=50)
    guard = await collected.pins.guard()
    await collected.pin("main", "a")
    assert await remove(collected.store, "a", guard=guard) == set()
    guard = await collected.pins.guard()
    await collected.pin("main", "a")
    assert await remove(collected.store, "a", guard=guard) == set()


@pytest.mark.parametrize("name", ["", "a/b", ".hidden", "-x", "a b", "é", "x" * 101, "a\n"])
async def test_what_is_no_name_is_refused(collected: Collected, name: str) -> None:
    await collected.put("a")
    with pytest.raises(InvalidError, match="not a name of a pin"):
        await collected.pin(name, "a")


async def test_bounds_of_pins(collected: Collected, monkeypatch: pytest.MonkeyPatch) -> None:
    for bad in ({"days": 0}, {"revisions": 0}, {"days": 10**6}, {"revisions": 10**9}):
        with pytest.raises(InvalidError, match="a pin stays for 1 to"):
            Keep(**bad)
    await collected.pins.put("x" * 100, [b"%020d" % n for n in range(pins_module.MOST_PATHS)])
    for count in (0, pins_module.MOST_PATHS + 1):
        with pytest.raises(InvalidError, match="a pin has 1 to 3000 paths"):
            await collected.pins.put("main", [b"%020d" % n for n in range(count)])


@pytest.mark.parametrize("record", [b"pin:x", b"pin:x/1", b"pin:x/%016x" % 1, b"pin:/%016x" % 1, b"pin:\xff/%016x" % 1])
@pytest.mark.parametrize("value", [b"", b"bad", b"\1" + bytes(20), b"\1" + bytes(40), b"\1" + bytes(8) + b"\xff" * 12 + bytes(20)])
async def test_a_damaged_pin_is_told_and_can_be_removed(collected: Collected, record: bytes, value: bytes) -> None:
    if record == b"pin:x/%016x" % 1 and value == b"\1" + bytes(40):
        return  # that is a good one
    await collected.records.put({record: value})
    with pytest.raises(CorruptError, match="the record of "):
        await collected.pinned()
    if record.startswith(b"pin:x/"):
        await collected.pins.remove("x")
        assert await collected.pinned() == set()


async def test_two_who_pin_at_once_both_have_a_revision(collected: Collected) -> None:
    await collected.pins.put("main", [hash_of("a")])
    key = (await collected.pins.put("main", [hash_of("b")])).key
    assert key != (await collected.pins.put("main", [hash_of("b")])).key
