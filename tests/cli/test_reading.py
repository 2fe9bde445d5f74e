"""`list`, `info`, `ls`, `cat`, `stat`, `nar-hash` and `stats`."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path

import pytest

from tests import programs
from tests.cli.program import Program
from tvix_store import Digest, NixHash, open_store


@pytest.fixture
def path(tvix_store: Program, tree: Path) -> str:
    """The store path of the tree."""
    return tvix_store("import", tree)


def test_a_store_path_may_be_given_in_full_by_base_name_or_by_hash(tvix_store: Program, path: str) -> None:
    base = path.removeprefix("/nix/store/")
    texts = {tvix_store("cat", f"{form}/text") for form in (path, base, base[:32])}
    assert texts == {"some text"}


def test_list_prints_the_store_paths(tvix_store: Program, tree: Path, path: str) -> None:
    other = tvix_store("import", tree / "text")
    assert set(tvix_store("list").splitlines()) == {path, other}
    assert {line.split()[-1] for line in tvix_store("list", "-l").splitlines()} == {path, other}
    assert {record["path"] for record in json.loads(tvix_store("list", "--json"))} == {path, other}


@pytest.fixture
def several(tvix_store: Program, tmp_path: Path) -> Program:
    """The program on a store with three paths of different names, sizes and times: b, c and then a."""
    for name, size in (("b", 3000), ("c", 1000), ("a", 2000)):
        (tmp_path / name).write_bytes(bytes(size))
        tvix_store("import", tmp_path / name)
    return tvix_store


def names(listed: str) -> str:
    """The names in a list of store paths whose names have one letter."""
    return "".join(line[-1] for line in listed.splitlines())


@pytest.mark.parametrize(("order", "expected"), [("name", "abc"), ("time", "bca"), ("size", "cab")])
def test_list_sorts(several: Program, order: str, expected: str) -> None:
    assert names(several("list", "--sort", order)) == expected
    assert names(several("list", "-l", "--sort", order, "--reverse")) == expected[::-1]


def test_list_takes_globs(several: Program) -> None:
    assert names(several("list", "*-[ab]", "--sort", "name")) == "ab"
    assert names(several("list", "/nix/store/*-a", "*-c", "--sort", "name")) == "ac"
    assert several("list", "a") == ""


def test_a_long_list_ends_with_the_sum(several: Program) -> None:
    ended = several.run("list", "-l")
    assert ended.error == "3 paths, 6.19 KiB in NARs\n"
    assert several.run("list", "-l", "*-a").error == "1 path, 2.06 KiB in NARs\n"
    assert several.run("list").error == several.run("list", "-lq").error == ""


def test_a_store_that_does_not_know_the_order_says_so(tvix_store: Program) -> None:
    ended = tvix_store.run("list", "--sort", "time", "--store", "memory://")
    assert ended.code == 10
    assert ended.error == (
        "tvix-store: error: memory:// does not tell when paths came; ask where it is kept, with --store local:///path\n"
    )


def test_an_empty_store_has_an_empty_list_and_is_named(tvix_store: Program) -> None:
    ended = tvix_store.run("list", "--store", "memory://")
    assert (ended.code, ended.output, ended.error) == (0, b"", "tvix-store: the store memory:// has no store paths\n")
    assert tvix_store("list", "--quiet", "--store", "memory://") == ""
    assert json.loads(tvix_store("list", "--json", "--store", "memory://")) == []


async def test_an_empty_store_names_its_caches(tvix_store: Program) -> None:
    address = f"local://{tvix_store.store}?cache="
    for name in ("team-b", "team-a"):
        async with open_store(address + name):
            pass
    for command in (("list",), ("check",), ("copy", "--all", "--to", "memory://")):
        said = tvix_store.run(*command).error
        assert f"; its named caches have paths of their own (team-a, team-b): --store '{address}team-a'\n" in said
    assert tvix_store.run("list", "--store", address + "team-a").error.endswith("has no store paths\n")


def test_a_store_that_is_not_there_is_made_by_no_reader(tvix_store: Program) -> None:
    environment = tvix_store.environment | {"TVIX_STORE": "./nowhere"}
    ended = tvix_store.run("list", environment=environment)
    assert ended.code == 12
    place = f"{tvix_store.directory}/nowhere"
    assert (
        ended.error
        == f"tvix-store: error: there is no store in {place}, which $TVIX_STORE names; tvix-store import makes one there\n"
    )
    assert not Path(place).exists()


def test_ls_lists_a_directory_sorted_by_name(tvix_store: Program, path: str) -> None:
    names = ["big", "bin", "dangling", "empty", "not-utf8-\udcff\udcfe", "text", "void"]
    assert tvix_store("ls", path).splitlines() == names
    assert [entry["path"] for entry in json.loads(tvix_store("ls", "--json", path))] == names


def test_ls_goes_down_on_request(tvix_store: Program, path: str) -> None:
    assert tvix_store("ls", "-lR", path).splitlines()[1:4] == [
        "dr-xr-xr-x      2 entries bin",
        "-r-xr-xr-x             21 bin/hello",
        "lrwxrwxrwx              0 bin/sh -> hello",
    ]


def test_ls_shows_sizes_to_people(tvix_store: Program, path: str) -> None:
    assert tvix_store("ls", "-lh", path).splitlines()[:3] == [
        "-r--r--r--       1.43 MiB big",
        "dr-xr-xr-x      2 entries bin",
        "lrwxrwxrwx              - dangling -> /nowhere",
    ]
    assert "Usage:" in tvix_store("ls", "--help")


def test_ls_knows_the_option_that_is_no_news_to_it(tvix_store: Program, path: str) -> None:
    assert tvix_store("ls", "-la", path) == tvix_store("ls", "-l", path)


def test_ls_of_a_file_shows_the_file(tvix_store: Program, path: str) -> None:
    assert tvix_store("ls", "-l", f"{path}/text") == "-r--r--r--             10 text"


def test_ls_of_an_empty_directory_shows_nothing(tvix_store: Program, path: str) -> None:
    assert tvix_store("ls", f"{path}/void") == ""


def test_cat_prints_what_was_imported(tvix_store: Program, tree: Path, path: str) -> None:
    ended = tvix_store.run("cat", f"{path}/big", f"{path}/empty", f"{path}/text")
    assert ended.output == (tree / "big").read_bytes() + b"some text\n"


def test_cat_follows_symlinks_inside_the_store_path(tvix_store: Program, path: str) -> None:
    assert tvix_store("cat", f"{path}/bin/sh") == "#!/bin/sh\necho hello"


def test_cat_does_not_follow_symlinks_to_elsewhere(tvix_store: Program, path: str) -> None:
    ended = tvix_store.run("cat", f"{path}/dangling")
    assert ended.code == 3
    assert "leads out of the store path" in ended.error


def test_cat_gives_up_on_a_circle_of_symlinks(tvix_store: Program, tmp_path: Path) -> None:
    circle = tmp_path / "circle"
    circle.mkdir()
    (circle / "a").symlink_to("b")
    (circle / "b").symlink_to("a")
    ended = tvix_store.run("cat", tvix_store("import", circle) + "/a")
    assert ended.code == 3
    assert "more than 40 symlinks" in ended.error


def test_a_name_that_is_not_utf8_can_be_asked_for(tvix_store: Program, path: str) -> None:
    assert tvix_store("cat", path.encode() + b"/not-utf8-\xff\xfe") == "?"


def test_info_shows_a_path_info(tvix_store: Program, path: str) -> None:
    shown = dict(line.split(": ", 1) for line in tvix_store("info", path).splitlines())
    assert list(shown) == ["Path", "Type", "Digest", "Size", "NAR hash", "NAR size", "CA"]
    assert shown["Path"].strip() == path
    assert shown["Size"].strip().endswith(" entries")
    assert shown["CA"].strip() == f"fixed:r:{shown['NAR hash'].strip()}"


def test_info_shows_what_is_inside(tvix_store: Program, path: str) -> None:
    assert json.loads(tvix_store("info", "--json", f"{path}/bin/sh")) == {"type": "symlink", "target": "hello"}


def test_stat_shows_the_chunks_of_a_large_blob(tvix_store: Program, tree: Path, path: str) -> None:
    answer = json.loads(tvix_store("stat", "--json", f"{path}/big"))
    contents = (tree / "big").read_bytes()
    assert answer["digest"] == str(Digest.of(contents))
    assert answer["size"] == len(contents)
    assert len(answer["chunks"]) > 1
    for chunk in answer["chunks"]:
        here, contents = contents[: chunk["size"]], contents[chunk["size"] :]
        assert chunk["digest"] == str(Digest.of(here))
    assert contents == b""


def test_stat_takes_every_form_of_a_digest(tvix_store: Program, path: str) -> None:
    digest = Digest.of(b"some text\n")
    answers = {tvix_store("stat", form) for form in (str(digest), digest.hex, digest.base64, f"{path}/text")}
    assert answers == {f"{digest}  10 bytes, 1 chunk"}


def test_the_nar_hash_is_that_of_nix(tvix_store: Program, tree: Path, path: str) -> None:
    nar = subprocess.run([programs.require("nix-store"), "--dump", tree], check=True, capture_output=True).stdout
    root = json.loads(tvix_store("info", "--json", path))["root"]["digest"]
    true = f"{NixHash('sha256', hashlib.sha256(nar).digest())} {len(nar)}"
    assert tvix_store("nar-hash", path) == tvix_store("nar-hash", root) == true


def test_the_nar_hash_of_what_is_on_the_disk_is_that_of_nix(tvix_store: Program, tree: Path) -> None:
    for each in (tree, tree / "bin/hello", tree / "bin/sh", tree / "dangling", tree / "void"):
        nar = subprocess.run([programs.require("nix-store"), "--dump", each], check=True, capture_output=True).stdout
        assert tvix_store("nar-hash", each) == f"{NixHash('sha256', hashlib.sha256(nar).digest())} {len(nar)}"
    assert tvix_store("nar-hash", "tree") == tvix_store("nar-hash", "./tree/") == tvix_store("nar-hash", tree)
    assert not tvix_store.store.exists()


def test_stats_count_equal_content_once(tvix_store: Program, tree: Path, path: str) -> None:
    tvix_store("import", "--name", "again", tree)
    counted = json.loads(tvix_store("stats", "--json"))
    assert (counted["pathInfos"], counted["directories"]) == (2, 3)
    assert counted["logicalBytes"] == 2 * json.loads(tvix_store("info", "--json", path))["narSize"]
    assert counted["dedupRatio"] > 1.9
    assert not any("_" in key for key in counted)
    assert "1 : 2.00, since equal chunks are stored once" in tvix_store("stats")


def test_a_store_that_cannot_count_says_so(tvix_store: Program) -> None:
    ended = tvix_store.run("stats", "--store", "memory://")
    assert ended.code == 10
    assert "cannot count" in ended.error
