"""Deleting paths by name."""

from __future__ import annotations

import pytest

from tests.operations.collection.paths import Collected, paths
from tvix_store.errors import ConflictError, NotFoundError
from tvix_store.operations.collection.delete import Referrers, delete_paths
from tvix_store.operations.collection.pins import Pins
from tvix_store.services.removal import Guard


async def delete(collected: Collected, *names: str, referrers: Referrers = Referrers.REFUSE) -> set[str]:
    return {each.name for each in await delete_paths(collected.store, paths(*names), referrers)}


@pytest.fixture
async def chain(collected: Collected) -> Collected:
    """Paths each of which refers to the one before, and one alone."""
    await collected.put("far")
    await collected.put("near", "far")
    await collected.put("needs", "near")
    await collected.put("alone")
    return collected


async def test_a_path_goes_however_lately_it_was_used(chain: Collected) -> None:
    assert await delete(chain, "needs", "alone") == {"needs", "alone"}
    assert await chain.listed() == {"far", "near"}


async def test_a_path_to_which_others_refer_stays_and_all_that_were_named_with_it(chain: Collected) -> None:
    for number in range(5):
        await chain.put(f"path-{number}", "far")
    with pytest.raises(ConflictError, match=r"-far is needed by (\S+, ){2}\S+ and 3 more$"):
        await delete(chain, "alone", "far")
    with pytest.raises(ConflictError, match=r"-near is needed by \S+-needs$"):
        await delete(chain, "near")
    assert len(await chain.listed()) == 9
    assert await delete(chain, "near", "needs") == {"near", "needs"}


async def test_recursively_all_go_that_refer_to_it(chain: Collected) -> None:
    await chain.put("self", "self", "near")
    assert await delete(chain, "far", referrers=Referrers.DELETE) == {"far", "near", "needs", "self"}
    assert await chain.listed() == {"alone"}


async def test_references_may_be_ignored(chain: Collected) -> None:
    assert await delete(chain, "far", referrers=Referrers.IGNORE) == {"far"}
    assert await chain.listed() == {"near", "needs", "alone"}


@pytest.mark.parametrize("referrers", Referrers)
async def test_a_pinned_path_stays_in_any_case(chain: Collected, referrers: Referrers) -> None:
    await chain.pin("v1", "needs")
    with pytest.raises(ConflictError, match=r"-needs is pinned by v1: remove that pin first"):
        await delete(chain, "needs", referrers=referrers)
    if referrers is Referrers.DELETE:
        with pytest.raises(ConflictError, match=r"-needs is pinned by v1: remove that pin first"):
            await delete(chain, "far", referrers=referrers)
    assert len(await chain.listed()) == 4
    await chain.pins.remove("v1")
    assert "needs" in await delete(chain, "needs", referrers=referrers)


async def test_a_path_that_is_not_there_is_named(chain: Collected) -> None:
    with pytest.raises(NotFoundError, match=r"store path /nix/store/\S+-gone is not in the store"):
        await delete(chain, "alone", "gone")
    assert len(await chain.listed()) == 4


async def test_a_path_that_is_pinned_meanwhile_stays(chain: Collected, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = Pins.pinned
    calls = 0

    async def then_a_pin(self: Pins, now: int) -> dict[bytes, str]:
        nonlocal calls
        found = await inner(self, now)
        calls += 1
        if calls == 1:
            await chain.pin("late", "alone")
        return found

    monkeypatch.setattr(Pins, "pinned", then_a_pin)
    with pytest.raises(ConflictError, match="is pinned by late"):
        await delete(chain, "alone")
    assert "alone" in await chain.listed()


async def test_who_pins_all_the_time_keeps_a_deletion_from_its_end(chain: Collected, monkeypatch: pytest.MonkeyPatch) -> None:
    async def other(self: Pins) -> Guard:
        return Guard(b"pin:", b"another")

    monkeypatch.setattr(Pins, "guard", other)
    with pytest.raises(ConflictError, match="is still there: others put, or pin"):
        await delete(chain, "alone")
