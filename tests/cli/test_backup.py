"""`tvix-store backup`: as a person runs it."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from tests.cli.program import Program
from tests.cli.test_check import harm
from tvix_store.testing.content import noise


@pytest.fixture
def path(tvix_store: Program, tmp_path: Path) -> str:
    """A store path with a small file and a large one."""
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "small").write_bytes(noise(2000, "small"))
    (tree / "large").write_bytes(noise(3_000_000, "large"))
    return tvix_store("import", "tree")


def test_a_backup_is_made_looked_at_and_restored(tvix_store: Program, path: str) -> None:
    ended = tvix_store.run("backup", "copy")
    assert (ended.code, ended.output) == (0, b"")
    assert re.fullmatch(r"2\.8\d MiB copied, 0 B were there \(2 packs, 0 caches\); [\d.]+ s\n", ended.error)
    assert tvix_store("--store", "./copy", "list") == path
    assert tvix_store.run("--store", "./copy", "check", "--read-data").code == 0
    shutil.rmtree(tvix_store.store)
    shutil.copytree(tvix_store.directory / "copy", tvix_store.store)
    assert tvix_store.run("check", "--read-data").code == 0
    assert tvix_store("list") == path


def test_json_tells_what_was_copied(tvix_store: Program, path: str) -> None:
    tvix_store("backup", "copy", "-q")
    told = json.loads(tvix_store("backup", "copy", "--json"))
    assert told["there"] > 3_000_000
    assert told == {
        "directory": "copy",
        "copied": 0,
        "there": told["there"],
        "damaged": 0,
        "packs": 2,
        "caches": 0,
        "seconds": told["seconds"],
    }


def test_what_is_damaged_is_repaired_from_the_backup(tvix_store: Program, path: str) -> None:
    tvix_store("backup", "copy", "-q")
    harm(tvix_store.store, noise(2000, "small")[:100])
    assert tvix_store.run("backup", "copy").code == 0
    assert tvix_store.run("check", "--read-data").code == 6
    assert tvix_store.run("check", "--read-data", "--repair", "--from", "./copy").code == 0


def test_damage_between_the_contents_of_packs_is_told(tvix_store: Program, path: str) -> None:
    for pack in (tvix_store.store / "packs").iterdir():
        with pack.open("r+b") as file:
            file.seek(48)
            file.write(bytes(10))
    ended = tvix_store.run("backup", "copy", "-q")
    assert ended.code == 6
    assert "the backup is made, but" in ended.error
    assert tvix_store("--store", "./copy", "list") == path


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("store/inside",), 3, "lie in each other: choose another place for the backup"),
        (("tree",), 3, "is neither empty nor a backup: it has no settings.json"),
        (("local:///copy?cache=a",), 3, "a backup is a directory, which takes its settings from the store; give its path alone"),
        (("copy", "--store", "./nothing"), 12, "there is no store in"),
        (("copy", "--store", "local:///srv/store?cache=a"), 3, "leave out cache="),
        (("copy", "--store", "memory://"), 10, "only a store in one directory is backed up into one, not memory://"),
        ((), 2, "Missing argument 'DIR|ADDRESS'"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line(
    tvix_store: Program, path: str, arguments: tuple[str, ...], code: int, message: str
) -> None:
    ended = tvix_store.run("backup", *arguments)
    assert ended.code == code
    assert message in ended.error
    assert ended.error.count("\n") == 1
    assert not (tvix_store.directory / "copy").exists()


def test_to_an_address_of_another_kind_all_paths_are_copied(tvix_store: Program, path: str) -> None:
    cache = tvix_store.directory / "cache"
    assert tvix_store("backup", f"file://{cache}", "-q") == path
    assert (cache / f"{path.removeprefix('/nix/store/')[:32]}.narinfo").exists()
