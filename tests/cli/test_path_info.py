"""`tvix-store path-info get|put|sign|verify`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.program import Program
from tvix_store import SecretKey

KEY = SecretKey.generate("test-1")


@pytest.fixture
def path(tvix_store: Program, tree: Path) -> str:
    return tvix_store("import", tree)


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    file = tmp_path / "key"
    file.write_text(f"{KEY}\n")
    file.chmod(0o600)
    return file


def put(tvix_store: Program, document: Any) -> str:
    return tvix_store("path-info", "put", data=json.dumps(document).encode())


def test_what_get_prints_put_takes(tvix_store: Program, tree: Path, path: str) -> None:
    record = tvix_store("path-info", "get", path)
    other = f"local://{tvix_store.directory}/other"
    tvix_store("import", "--no-path-info", tree, "--store", other)
    assert tvix_store("path-info", "put", "--store", other, data=record.encode()) == path
    assert tvix_store("path-info", "get", path, "--store", other) == record


def test_several_path_infos_are_an_array(tvix_store: Program, tree: Path, path: str) -> None:
    other = tvix_store("import", tree / "text")
    records = json.loads(tvix_store("path-info", "get", path, other))
    assert [record["path"] for record in records] == [path, other]
    assert put(tvix_store, records).splitlines() == [path, other]


def test_nar_facts_may_be_left_out(tvix_store: Program, path: str) -> None:
    record = json.loads(tvix_store("path-info", "get", path))
    name = "/nix/store/" + "0" * 32 + "-other"
    put(tvix_store, {"path": name, "root": record["root"], "references": [path], "deriver": f"{path}.drv"})
    stored = json.loads(tvix_store("path-info", "get", name))
    assert stored == {**record, "path": name, "references": [path], "deriver": f"{path}.drv", "ca": None}


def test_a_false_nar_hash_is_refused(tvix_store: Program, path: str) -> None:
    record = json.loads(tvix_store("path-info", "get", path))
    record["narHash"] = "sha256-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
    ended = tvix_store.run("path-info", "put", data=json.dumps(record).encode())
    assert ended.code == 3
    assert "nar_sha256 is 0000" in ended.error


def test_content_must_be_there_first(tvix_store: Program, path: str) -> None:
    record = tvix_store("path-info", "get", path)
    without_nar = {key: value for key, value in json.loads(record).items() if not key.startswith("nar")}
    for data in (record, json.dumps(without_nar)):
        ended = tvix_store.run("path-info", "put", "--store", "memory://", data=data.encode())
        assert ended.code == 5
        assert "put it first" in ended.error


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "not JSON"),
        ("[[]]", "it is not a JSON object"),
        ("{}", "root is missing"),
        ('{"root": {"type": "pipe"}}', "unknown type 'pipe'"),
        ('{"root": {"type": "symlink", "target": ""}}', "a symlink's target is empty"),
        ('{"root": {"type": "symlink", "target": "x"}, "colour": 1}', "unknown key 'colour'"),
        ('{"root": {"type": "symlink", "target": "x"}, "path": 1}', "path: expected a text, not 1"),
        ('{"root": {"type": "symlink", "target": "x"}, "path": "/nix/store/x"}', "path: not a store path"),
    ],
)
def test_malformed_path_infos_are_refused(tvix_store: Program, text: str, reason: str) -> None:
    ended = tvix_store.run("path-info", "put", data=text.encode())
    assert ended.code == 3
    assert reason in ended.error


def test_a_signed_path_is_trusted(tvix_store: Program, path: str, key_file: Path) -> None:
    trusted = ("--trusted-public-keys", str(KEY.public))
    before = tvix_store.run("path-info", "verify", *trusted, path)
    assert (before.code, before.lines) == (8, [f"{path}: no trusted key has signed it"])
    assert tvix_store("path-info", "sign", "--key-file", key_file, path) == path
    assert tvix_store("path-info", "verify", *trusted, path) == f"{path}: good"
    (verdict,) = json.loads(tvix_store("path-info", "verify", "--json", "--all", *trusted))
    assert verdict == {"path": path, "problem": None, "signedBy": ["test-1"]}


def test_what_is_stored_then_is_printed_as_json(tvix_store: Program, path: str, key_file: Path) -> None:
    [signed] = json.loads(tvix_store("path-info", "sign", "--json", "--key-file", key_file, path))
    assert json.loads(tvix_store("path-info", "get", "--json", path)) == signed
    assert [each.partition(":")[0] for each in signed["signatures"]] == ["test-1"]
    unsigned = {**signed, "signatures": []}
    assert json.loads(tvix_store("path-info", "put", "--json", data=json.dumps([unsigned, unsigned]).encode())) == [signed] * 2


def test_a_signature_by_another_key_is_not_trusted(tvix_store: Program, path: str, key_file: Path) -> None:
    tvix_store("path-info", "sign", "--key-file", key_file, path)
    other = SecretKey.generate("test-1").public
    assert tvix_store.run("path-info", "verify", "--trusted-public-keys", str(other), "--all").code == 8


def test_damage_is_found_and_not_signed(tvix_store: Program, path: str, key_file: Path) -> None:
    pack = max((tvix_store.store / "packs").iterdir(), key=lambda each: each.stat().st_size)  # that of the content
    contents = bytearray(pack.read_bytes())
    contents[len(contents) // 2] ^= 1
    pack.write_bytes(contents)
    assert tvix_store.run("path-info", "sign", "--key-file", key_file, path).code == 6
    for _ in range(2):  # what was found damaged is missing from then on
        ended = tvix_store.run("path-info", "verify", "--all")
        assert ended.code == 6
        assert ended.error == "tvix-store: error: 1 store path is damaged\n"
    assert tvix_store.run("path-info", "sign", "--key-file", key_file, path).code == 4
    assert json.loads(tvix_store("path-info", "get", path))["signatures"] == []


def test_something_must_be_named_to_be_verified(tvix_store: Program) -> None:
    assert tvix_store.run("path-info", "verify").code == 2
