"""PathName: what a person writes for a store path."""

from __future__ import annotations

from pathlib import Path

import pytest

from tvix_store.backends.memory import open_store
from tvix_store.errors import InvalidError, NotFoundError
from tvix_store.operations.collection.kept import kept_store_path
from tvix_store.operations.ingest.import_tree import import_tree
from tvix_store.operations.paths.copy import named_path_infos
from tvix_store.operations.trees.path_name import PathName
from tvix_store.operations.trees.resolve import resolve, store_path_info

HASH = "0123456789abcdfghijklmnpqrsvwxyz"


@pytest.mark.parametrize("text", [HASH, f"{HASH}-hello", f"/nix/store/{HASH}-hello", f"/nix/store/{HASH}"])
def test_a_path_has_many_names(text: str) -> None:
    name = PathName.parse(text, "/nix/store")
    assert (name, "bin/hello") == PathName.split(f"{text}/bin/hello", "/nix/store")
    assert name.name in (None, "hello")


@pytest.mark.parametrize(
    ("text", "refusal"),
    [
        ("hello", r"'hello' \(expected <32 characters>-<name>\)$"),
        ("/nix/store/hello", r"\(expected /nix/store/<32 characters>-<name>\)$"),
        ("/nix/store", r"\(expected /nix/store/<32 characters>-<name>\)$"),
        (f"/gnu/store/{HASH}-hello", r"\(the paths of this store are in /nix/store\)$"),
        (f"{HASH}-hello/bin", f"is a path inside one; name the whole one, {HASH}-hello$"),
        ("sha256-AAAA", "is the hash of some content"),
        ("tree", "'tree' is a directory on the disk; tvix-store import tree stores it"),
        ("tree/file", "is a file on the disk"),
        ("result", f"is a symlink on the disk; the store path that it leads to is /nix/store/{HASH}-hello$"),
        ("e" * 32, "holds 'e', which is none of"),
        (f"{HASH}-a%b", "not a store path name: 'a%b'"),
        ("\0", "expected"),
    ],
)
def test_what_is_none_is_refused_with_a_hint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, refusal: str) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/file").touch()
    (tmp_path / "result").symlink_to(f"/nix/store/{HASH}-hello")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidError, match=f"^not a store path: .*{refusal}"):
        PathName.parse(text, "/nix/store")


async def test_a_wrong_name_behind_a_right_hash_is_another_path(tmp_path: Path) -> None:
    (tmp_path / "hello").touch()
    async with await open_store() as store:
        right = str((await import_tree(store, tmp_path / "hello")).store_path)
        wrong = f"/nix/store/{right[:32]}-goodbye"
        for ask in (resolve, store_path_info, kept_store_path):
            await ask(store, right)
            with pytest.raises(NotFoundError, match=f"{wrong} is not in the store; the path with this hash is {right}$"):
                await ask(store, wrong)
        with pytest.raises(NotFoundError, match=f"the path with this hash is {right}$"):
            await named_path_infos(store, [wrong])
