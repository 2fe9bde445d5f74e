"""`tvix-store pin` and `tvix-store delete`."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from tests.cli.program import Program
from tests.cli.test_remote import daemon
from tvix_store.config import open_store
from tvix_store.testing.contracts.path_infos import path
from tvix_store.testing.contracts.removal import put


def full(name: str) -> str:
    return path(name).absolute()


@pytest.fixture
def chain(tvix_store: Program) -> Program:
    """A store with paths each of which refers to the one before."""

    async def fill() -> None:
        async with await open_store(str(tvix_store.store)) as store:
            await put(store, "far")
            await put(store, "near", "far")
            await put(store, "needs", "near")

    asyncio.run(fill())
    return tvix_store


def listed(program: Program) -> set[str]:
    return {each.rpartition("-")[2] for each in program("list").splitlines()}


def test_a_path_is_deleted(chain: Program) -> None:
    ended = chain.run("delete", full("needs"))
    assert (ended.code, ended.lines) == (0, [full("needs")])
    assert ended.error == "1 path is deleted; `tvix-store gc` gives the space back\n"
    assert listed(chain) == {"far", "near"}
    assert json.loads(chain("delete", "-q", "--json", str(path("near")), full("far")[11:43])) == {
        "deleted": [full("near"), full("far")]
    }
    assert chain("list") == ""


def test_a_path_to_which_others_refer_stays(chain: Program) -> None:
    ended = chain.run("delete", full("far"))
    assert (ended.code, ended.output) == (5, b"")
    assert ended.error == f"tvix-store: error: {full('far')} is needed by {path('near')}\n"
    assert set(chain("delete", "--quiet", "--recursive", full("near")).splitlines()) == {full("near"), full("needs")}
    assert listed(chain) == {"far"}


def test_references_may_be_ignored(chain: Program) -> None:
    assert chain("delete", "--quiet", "--ignore-references", full("far")) == full("far")
    assert listed(chain) == {"near", "needs"}
    assert chain.run("check").code == 6


def test_what_can_not_be_deleted_is_told(chain: Program, tmp_path: Path) -> None:
    for arguments, code, line in (
        (("delete", full("gone")), 4, f"store path {full('gone')} is not in the store"),
        (("delete", "x"), 3, "not a store path"),
        (("delete", "--recursive", "--ignore-references", full("far")), 2, "do not go together"),
        (("--store", str(tmp_path / "nowhere"), "delete", full("far")), 12, "there is no store in"),
        (("--store", f"local://{chain.store}?read-only=1", "delete", full("needs")), 8, "can only be read"),
    ):
        ended = chain.run(*arguments)
        assert (ended.code, ended.output) == (code, b"")
        assert line in ended.error
        assert ended.error.count("\n") == 1
    assert listed(chain) == {"far", "near", "needs"}


def test_a_pinned_path_stays(chain: Program) -> None:
    assert chain("pin", "add", "v1", full("needs")) == ""
    for more in ((), ("--recursive",), ("--ignore-references",)):
        ended = chain.run("delete", full("needs"), *more)
        assert (ended.code, ended.error) == (5, f"tvix-store: error: {full('needs')} is pinned by v1: remove that pin first\n")
    assert chain("pin", "remove", "v1") == ""
    assert chain("delete", "--quiet", full("needs")) == full("needs")


def test_pins_are_listed(chain: Program) -> None:
    assert json.loads(chain("pin", "list", "--json")) == []
    chain("pin", "add", "main", full("needs"), "--keep-revisions", "2")
    chain("pin", "add", "main", full("near"), full("far"), "--keep-revisions", "2", "--keep-days", "9")
    chain("pin", "add", "v1", full("far"))
    main = json.loads(chain("pin", "list", "main", "--json"))
    assert [(each["name"], each["revision"], each["keepDays"], each["keepRevisions"], each["paths"]) for each in main] == [
        ("main", 2, 9, 2, [full("near"), full("far")]),
        ("main", 1, None, 2, [full("needs")]),
    ]
    assert json.loads(chain("pin", "list", "--json"))[:2] == main
    lines = chain("pin", "list").splitlines()
    assert [line.partition("\t")[2] for line in lines if line.startswith("\t")] == list(map(full, ("near", "far", "needs", "far")))
    told = [line.split("\t") for line in lines if not line.startswith("\t")]
    assert [(name, number, words) for name, number, _, words in told] == [
        ("main", "2", "keeps 9 days or 2 revisions"),
        ("main", "1", "keeps 2 revisions"),
        ("v1", "1", "keeps all revisions"),
    ]


def test_what_can_not_be_pinned_is_told(chain: Program) -> None:
    for arguments, code, line in (
        (("pin", "add", "v1", full("gone")), 4, f"store path {full('gone')} is not in the store"),
        (("pin", "add", "a/b", full("far")), 3, "not a name of a pin: 'a/b'"),
        (("pin", "add", "v1", full("far"), "--keep-days", "0"), 2, "--keep-days"),
        (("pin", "add", "v1", full("far"), "--keep-days", "99999999"), 3, "a pin stays for 1 to"),
        (("pin", "remove", "v1"), 4, "pin v1 is not in the store"),
        (("pin", "list", "v1"), 4, "pin v1 is not in the store"),
        (("pin", "list", "a/b"), 3, "not a name of a pin"),
        (("--store", f"local://{chain.store}?read-only=1", "pin", "add", "v1", full("far")), 8, "can only be read"),
    ):
        ended = chain.run(*arguments)
        assert (ended.code, ended.output) == (code, b"")
        assert line in ended.error
        assert ended.error.count("\n") == 1
    assert chain("pin", "list") == ""


def test_a_named_cache_has_pins_and_paths_of_its_own(chain: Program) -> None:
    cache = f"local://{chain.store}?cache=one"
    assert chain.run("copy", "--from", str(chain.store), "--to", cache, "--all").code == 0
    chain("--store", cache, "pin", "add", "v1", full("needs"))
    assert chain("pin", "list") == ""
    assert "is pinned by v1" in chain.run("--store", cache, "delete", full("needs")).error
    assert chain("delete", "--quiet", full("needs")) == full("needs")
    chain("--store", cache, "pin", "remove", "v1")
    assert chain("--store", cache, "delete", "--quiet", full("needs")) == full("needs")
    assert chain("--store", cache, "list").count("\n") == 1


def test_a_store_elsewhere_is_refused(chain: Program, tmp_path: Path) -> None:
    with daemon(chain, tmp_path / "socket") as client:
        for arguments in (("delete", full("needs")), ("pin", "add", "v1", full("needs")), ("pin", "list"), ("pin", "remove", "v1")):
            ended = client.run(*arguments)
            assert (ended.code, ended.output) == (10, b"")
            assert "use the address of the store itself, on its machine" in ended.error
            assert ended.error.count("\n") == 1
    assert listed(chain) == {"far", "near", "needs"}


@pytest.mark.parametrize("arguments", [("add", "x", full("far")), ("list",), ("remove", "x")])
@pytest.mark.parametrize("where", ["", "?cache=typo"])
def test_no_store_is_made_to_be_pinned(chain: Program, tmp_path: Path, arguments: tuple[str, ...], where: str) -> None:
    address = f"local://{chain.store}{where}" if where else str(tmp_path / "nowhere")
    ended = chain.run("--store", address, "pin", *arguments)
    assert ended.code == 12
    assert ("there is no cache typo of the store in" if where else "there is no store in") in ended.error
    assert not (tmp_path / "nowhere").exists()
    assert not (chain.store / "caches").exists()
