"""What Nix says of a closure: its database says the same as the program, and where it cannot be read, the program is asked."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.private_nix import PrivateNix, Registered, built
from tvix_store.errors import InvalidError
from tvix_store.model.signature import SecretKey
from tvix_store.model.store_path import STORE_DIR, StorePath
from tvix_store.operations.paths.nix_database import NixDatabase
from tvix_store.operations.paths.nix_json import StatedPath, objects_by_path, stated_path
from tvix_store.operations.paths.nix_store import NixStore
from tvix_store.testing.trees import TreeFile

BASE, ITSELF, TOP, OTHER = (built(n, name) for n, name in enumerate(("base", "itself", "top", "other"), 1))
PATHS = (
    Registered(BASE, TreeFile(b"base")),
    Registered(ITSELF, TreeFile(b"itself"), [ITSELF, BASE], deriver=f"{STORE_DIR}/{'0' * 32}-itself.drv"),
    Registered(TOP, {b"top": TreeFile(b"top")}, [BASE, ITSELF]),
    Registered(OTHER, TreeFile(b"other")),
)


@pytest.fixture
def nix(tmp_path: Path) -> PrivateNix:
    nix = PrivateNix(tmp_path / "nix")
    nix.register(PATHS)
    return nix


def closure(nix: PrivateNix, *paths: str) -> dict[str, StatedPath | None]:
    found = asyncio.run(NixStore.at(str(nix.root)).closure(list(map(StorePath.parse, paths))))
    return {path: None if stated is None else stated_path(path, stated, STORE_DIR) for path, stated in found.items()}


def test_the_database_says_what_the_program_says(nix: PrivateNix, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text(str(SecretKey.generate("test-1")))
    nix.nix("store", "sign", "--key-file", key, ITSELF)
    (tmp_path / "content").write_bytes(b"content")
    addressed = nix.nix("store", "add-path", tmp_path / "content")
    said = objects_by_path(json.loads(nix.nix("path-info", "--json", "--recursive", TOP, OTHER, addressed)))
    expected = {path: stated_path(path, stated, STORE_DIR) for path, stated in said.items() if stated is not None}
    assert len(expected) == 5
    database = NixDatabase(NixStore.at(str(nix.root)).database)
    found = {path: stated_path(path, stated, STORE_DIR) for path, stated in database.closure([TOP, OTHER, addressed, TOP]).items()}
    assert list(found.items()) == list(expected.items())
    assert found[ITSELF].signatures
    assert found[addressed].ca is not None
    with pytest.raises(InvalidError, match="not a valid path"):
        database.closure([built(9, "missing")])


def _away(database: Path) -> None:
    database.rename(database.with_name("away"))


def _of_another_form(database: Path) -> None:
    with sqlite3.connect(database) as connection:
        connection.execute("ALTER TABLE ValidPaths RENAME COLUMN sigs TO others")
    connection.close()


def _damaged(database: Path) -> None:
    database.write_bytes(b"damaged" * 1000)


@pytest.mark.parametrize("change", [_away, _of_another_form, _damaged])
def test_where_the_database_cannot_be_read_the_program_is_asked(
    nix: PrivateNix, change: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []

    async def answer(_: NixStore, paths: object, *options: str) -> dict[str, None]:
        asked.append((paths, options))
        return {}

    monkeypatch.setattr(NixStore, "_ask", answer)
    assert sorted(closure(nix, TOP)) == sorted((BASE, ITSELF, TOP))
    assert not asked
    change(NixStore.at(str(nix.root)).database)
    assert closure(nix, TOP) == {}
    assert asked == [([StorePath.parse(TOP)], ("--recursive",))]


def test_a_path_that_is_not_valid_is_told_and_the_others_are_described(nix: PrivateNix) -> None:
    missing = built(9, "missing")
    found = closure(nix, OTHER, missing)
    assert found.pop(missing) is None
    assert list(found) == [OTHER]


def test_a_chain_is_followed_to_its_end(tmp_path: Path) -> None:
    """Over more rows than a query has values."""
    file = tmp_path / "db.sqlite"
    with sqlite3.connect(file) as connection:
        connection.execute("CREATE TABLE ValidPaths (id INTEGER PRIMARY KEY, path, hash, narSize, deriver, sigs, ca)")
        connection.execute("CREATE TABLE Refs (referrer, reference)")
        connection.executemany(
            "INSERT INTO ValidPaths VALUES (?, ?, 'sha256:0', 1, NULL, NULL, NULL)", ((n, f"p{n}") for n in range(2000))
        )
        connection.executemany("INSERT INTO Refs VALUES (?, ?)", ((0, n) for n in range(1, 1500)))
        connection.executemany("INSERT INTO Refs VALUES (?, ?)", ((n, n + 1) for n in range(1499, 1600)))
    connection.close()
    found = NixDatabase(file).closure(["p0"])
    assert list(found) == sorted(f"p{n}" for n in range(1601))
    assert found["p1500"]["references"] == ["p1501"]
