"""Path infos that are removed: they stay away, and nothing that others need goes with them."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest

from tests.backends.local.store_files import let_another_boot_follow, make_index_anew, opened_table
from tests.programs import ROOT
from tvix_store.backends.local import open_store, removal
from tvix_store.backends.local.requests import Commit, Result
from tvix_store.errors import CorruptError, IncompleteError, UnavailableError
from tvix_store.services.reference_order import References, batches
from tvix_store.services.removal import Guard, used_key, used_records
from tvix_store.services.store import Store
from tvix_store.testing.contracts.removal import NOW, hash_of, listed, put, remove

DYING = "tests.backends.local.dying_writer"


def ended_by(directory: Path, what: str) -> int:
    return subprocess.run([sys.executable, "-m", DYING, directory, what], cwd=ROOT, check=False).returncode


def between(monkeypatch: pytest.MonkeyPatch, loop: asyncio.AbstractEventLoop, act: object) -> None:
    """Do something after it was found out what stays, and before anything is removed."""
    inner = batches

    def interrupted(references: References, most: int) -> list[Sequence[bytes]]:
        asyncio.run_coroutine_threadsafe(act(), loop).result()  # type: ignore[operator]
        return inner(references, most)

    monkeypatch.setattr(removal, "batches", interrupted)


async def counted(store: Store) -> int:
    assert store.statistics is not None
    return (await store.statistics.stats()).path_infos


async def test_what_was_removed_stays_away(tmp_path: Path) -> None:
    """When the index is made anew, older entries of the path lie in the packs."""
    directory = tmp_path / "store"
    async with await open_store(directory) as store:
        for name in ("kept", "gone", "again", "twice"):
            await put(store, name)
        assert await remove(store, "gone", "again", "twice") == {"gone", "again", "twice"}
        again = await put(store, "again")
        await put(store, "twice")
        await remove(store, "twice")
    for _ in range(2):
        make_index_anew(directory)
        async with await open_store(directory) as store:
            assert await listed(store) == {"kept", "again"}
            assert await counted(store) == 2
            assert await store.path_infos.get(hash_of("again")) == again


async def test_what_was_removed_stays_away_though_the_pack_that_says_so_is_lost(tmp_path: Path) -> None:
    directory = tmp_path / "store"
    async with await open_store(directory) as store:
        await put(store, "kept")
        await put(store, "gone")
    async with await open_store(directory) as other:  # it goes on with the same pack
        await remove(other, "gone")
    [pack] = (directory / "packs").iterdir()
    size = pack.stat().st_size
    with pack.open("r+b") as file:
        file.truncate(size - 20)
    async with await open_store(directory) as store:
        assert await listed(store) == {"kept"}
    make_index_anew(directory)
    async with await open_store(directory) as store:
        assert await listed(store) == {"kept"}


@pytest.mark.parametrize("what", ["needs", "again", "many"])
@pytest.mark.parametrize("is_cut", [False, True])
async def test_a_put_that_was_given_up_brings_nothing_back(tmp_path: Path, what: str, is_cut: bool) -> None:
    """Its entry lies at the end of another pack, behind everything that is committed."""
    directory = tmp_path / "store"
    others = {f"other-{n}" for n in range(20)}  # they were put as well as they could be, and nobody has removed them
    async with await open_store(directory) as store:
        await put(store, "reference")
        await put(store, "kept")
        assert await asyncio.to_thread(ended_by, directory, what) == -signal.SIGKILL
        assert await remove(store, "reference") == {"reference"}
    if is_cut:
        let_another_boot_follow(directory)
    else:
        make_index_anew(directory)
    for _ in range(2):
        async with await open_store(directory) as store:
            assert await listed(store) - others == {"kept"}
            await put(store, "reference")
            await remove(store, "reference")
        make_index_anew(directory)


async def test_nothing_is_removed_by_a_damaged_index(tmp_path: Path) -> None:
    directory = tmp_path / "store"
    async with await open_store(directory) as store:
        await put(store, "reference")
        await put(store, "needs", "reference")
    with opened_table(directory, b"path_infos") as (txn, _):
        row = txn.get(hash_of("needs"))
        assert row is not None
        txn.put(hash_of("needs"), row[:-1] + bytes([row[-1] ^ 1]))
    async with await open_store(directory) as store:
        with pytest.raises(UnavailableError, match="the index is damaged"):
            await remove(store, "reference")
    async with await open_store(directory) as store:
        assert await listed(store) == {"reference", "needs"}


async def test_a_bad_record_of_a_use_harms_no_other_put(tmp_path: Path) -> None:
    async with await open_store(tmp_path / "store") as store:
        assert store.records is not None
        await put(store, "old")
        await store.records.put({used_key(hash_of("old")): b"bad"})
        outcomes = await asyncio.gather(remove(store, "old"), *(put(store, f"new-{n}") for n in range(5)), return_exceptions=True)
        assert [isinstance(each, CorruptError) for each in outcomes] == [True, *[False] * 5]


async def test_what_is_referred_to_meanwhile_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with await open_store(tmp_path / "store") as store:
        await put(store, "far")
        await put(store, "near", "far")
        await put(store, "alone")

        async def act() -> None:
            await put(store, "new", "near")

        between(monkeypatch, asyncio.get_running_loop(), act)
        assert await remove(store, "far", "near", "alone") == {"alone"}
        assert await listed(store) == {"far", "near", "new"}


async def test_what_is_used_meanwhile_stays_with_what_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with await open_store(tmp_path / "store") as store:
        await put(store, "far", used=NOW - 9)
        await put(store, "near", "far", used=NOW - 9)
        await put(store, "above", "near")

        async def act() -> None:
            assert store.records is not None
            await store.records.put(used_records({hash_of("near"): NOW}))

        between(monkeypatch, asyncio.get_running_loop(), act)
        assert await remove(store, "far", "near", "above") == {"above"}


async def test_a_put_whose_reference_is_removed_meanwhile_is_refused(tmp_path: Path) -> None:
    """It was there when the references were looked for."""
    async with await open_store(tmp_path / "store") as store:
        await put(store, "reference")
        outcomes = await asyncio.gather(
            *(put(store, f"needs-{n}", "reference", requires=True) for n in range(5)),
            remove(store, "reference"),
            *(put(store, f"also-{n}", "reference", requires=True) for n in range(5)),
            return_exceptions=True,
        )
        there = await listed(store)
        assert ("reference" in there) == any(name.startswith(("needs", "also")) for name in there)
        assert all(isinstance(each, IncompleteError) for each in outcomes if isinstance(each, BaseException))


async def test_paths_go_in_an_order_in_which_nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever use comes between two transactions."""
    monkeypatch.setattr(removal, "_AT_ONCE", 3)
    names = [f"path-{n}" for n in range(25)]
    async with await open_store(tmp_path / "store") as store:
        await put(store, names[0])
        for before, name in pairwise(names):
            await put(store, name, before)
        apply = removal.RemovePathInfos.apply

        def used_meanwhile(request: removal.RemovePathInfos, commit: Commit) -> Result:
            if hash_of("path-15") in request._output_hashes:
                commit.put_records(used_records({hash_of("path-15"): NOW}), durable=False)
            return apply(request, commit)

        monkeypatch.setattr(removal.RemovePathInfos, "apply", used_meanwhile)
        assert await remove(store, *names) == set(names[16:])
        assert await counted(store) == 16


async def test_who_was_left_without_a_reference_stays_when_the_index_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is no put that was given up before its reference was removed."""
    monkeypatch.setattr(removal, "_AT_ONCE", 2)
    directory = tmp_path / "store"
    async with await open_store(directory) as store:
        await put(store, "far")
        for number in range(5):
            await put(store, f"needs-{number}", "far")

        async def act() -> None:
            await put(store, "late", "far")

        between(monkeypatch, asyncio.get_running_loop(), act)
        assert await remove(store, "far", ignore_references=True) == {"far"}
        left = {"late", *(f"needs-{number}" for number in range(5))}
        assert await listed(store) == left
    for _ in range(2):
        make_index_anew(directory)
        async with await open_store(directory) as store:
            assert await listed(store) == left


async def test_a_guard_that_changes_meanwhile_ends_a_removal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with await open_store(tmp_path / "store") as store:
        await put(store, "one")

        async def act() -> None:
            assert store.records is not None
            await store.records.put({b"guard": b"x"})

        between(monkeypatch, asyncio.get_running_loop(), act)
        assert await remove(store, "one", guard=Guard(b"guard", None)) == set()
        assert await remove(store, "one", guard=Guard(b"guard", b"x")) == {"one"}
