"""`tvix-store gc`: what is not needed goes, by a policy or alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.program import Program
from tvix_store.testing.content import noise


@pytest.fixture
def paths(tvix_store: Program, tmp_path: Path) -> list[str]:
    """Three store paths of 5 MB each, the first and the second of which share half of it."""
    for name, seeds in (("first", "ab"), ("second", "bc"), ("third", "de")):
        (tmp_path / name).mkdir()
        for seed in seeds:
            (tmp_path / name / seed).write_bytes(noise(2_500_000, seed))
    return [tvix_store("import", name) for name in ("first", "second", "third")]


def gc(tvix_store: Program, *options: str) -> Any:
    return json.loads(tvix_store("gc", "--json", *options))


def test_what_no_path_needs_goes_at_the_second_run(tvix_store: Program, paths: list[str]) -> None:
    assert gc(tvix_store)["condemned"]["count"] == 0
    tvix_store("delete", "--quiet", paths[0])
    told = gc(tvix_store, "--dry-run")
    assert 2_500_000 < told["condemned"]["size"] < 2_510_000, "what is shared stays"
    first = gc(tvix_store)
    assert (first["condemned"], first["deleted"]["count"], first["freed"]) == (told["condemned"], 0, 0)
    again = gc(tvix_store)
    assert (again["waiting"], again["readyAt"]) == (first["condemned"], first["readyAt"])
    last = gc(tvix_store, "--grace", "0")
    assert last["deleted"] == first["condemned"]
    assert last["freed"] >= 0.95 * told["condemned"]["size"]
    assert last["readyAt"] is None
    tvix_store("check", "--read-data", "--quiet")


def test_paths_go_until_the_rest_fits_and_pinned_ones_stay(tvix_store: Program, paths: list[str]) -> None:
    tvix_store("pin", "add", "release", paths[0])
    told = gc(tvix_store, "--max-size", "11500K", "--dry-run")
    assert told["paths"] == 1
    assert set(tvix_store("list").split()) == set(paths)
    done = gc(tvix_store, "--max-size", "11500K", "--grace", "0")
    assert (done["paths"], done["deleted"]) == (1, told["condemned"])
    assert done["used"] <= 11500 << 10
    assert paths[0] in tvix_store("list")
    assert gc(tvix_store, "--max-size", "5M", "--grace", "0")["paths"] == 1
    assert tvix_store("list").split() == [paths[0]]
    tvix_store("check", "--read-data", "--quiet")


def test_a_store_that_takes_no_more_than_it_may_keeps_its_paths(tvix_store: Program, paths: list[str]) -> None:
    used = gc(tvix_store, "--dry-run")["used"]
    assert gc(tvix_store, "--max-size", str(used + 100_000), "--dry-run")["paths"] == 0
    assert gc(tvix_store, "--max-size", str(used - 100_000), "--dry-run")["paths"] == 1


def test_room_on_the_disk_is_made_by_removing_paths(tvix_store: Program, paths: list[str]) -> None:
    free = gc(tvix_store, "--dry-run")["free"]
    assert gc(tvix_store, "--min-free", "1M", "--dry-run")["paths"] == 0, "that is free already"
    ended = tvix_store.run("gc", "--min-free", str(free + (1 << 40)))
    assert ended.code == 3
    assert "no path would be left" in ended.error


def test_what_was_just_put_is_kept(tvix_store: Program, paths: list[str]) -> None:
    assert gc(tvix_store, "--keep-for", "1h", "--grace", "0")["paths"] == 0
    assert set(tvix_store("list").split()) == set(paths)


def test_what_is_done_is_told_in_words(tvix_store: Program, paths: list[str]) -> None:
    tvix_store("delete", "--quiet", paths[2])
    assert "0 paths would go; that, and what no path needs now, would free 4.77 MiB" in tvix_store("gc", "--dry-run")
    assert "4.77 MiB are set apart, for a run after 20" in tvix_store("gc")
    done = tvix_store("gc", "--grace", "0")
    assert done.startswith("0 paths removed, 4.77 MiB deleted, 4.7")
    assert "the store takes " in done
    assert tvix_store("gc", "--max-size", "6M", "--dry-run").startswith("1 path would go; ")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--keep-for", "soon"), "Invalid value for --keep-for: 'soon' is not a span of time"),
        (("--max-size", "much"), "Invalid value for --max-size: not a number of bytes: 'much'"),
        (("--grace", "-1"), "Invalid value for --grace"),
        (("--keep-for", "1m"), "Invalid value for --keep-for: uses are noted once an hour, so the least is 1h"),
    ],
)
def test_a_malformed_option_is_named(tvix_store: Program, paths: list[str], options: tuple[str, ...], message: str) -> None:
    ended = tvix_store.run("gc", *options)
    assert ended.code == 2
    assert message in ended.error


def test_a_size_that_leaves_no_path_is_refused(tvix_store: Program, paths: list[str]) -> None:
    ended = tvix_store.run("gc", "--max-size", "1K")
    assert ended.code == 3
    assert "1024 bytes are fewer than the index of the store takes" in ended.error
    assert set(tvix_store("list").split()) == set(paths)


def test_a_named_cache_is_collected_with_its_store(tvix_store: Program, paths: list[str]) -> None:
    cache = f"local://{tvix_store.store}?cache=team"
    tvix_store("--store", cache, "import", "first")
    ended = tvix_store.run("--store", cache, "gc")
    assert ended.code == 10
    assert "a store in a directory does, by its address without ?cache=" in ended.error


def test_no_store_is_made_to_be_collected(tvix_store: Program, tmp_path: Path) -> None:
    ended = tvix_store.run("--store", "./nowhere", "gc")
    assert ended.code == 12
    assert "there is no store in" in ended.error
    assert not (tmp_path / "nowhere").exists()


def test_two_collections_do_not_run_at_once(tvix_store: Program, paths: list[str]) -> None:
    from tvix_store.backends.local.collection_lock import collecting

    with collecting(tvix_store.store) as is_alone:
        assert is_alone
        ended = tvix_store.run("gc")
    assert ended.code == 7
    assert "another process collects" in ended.error
