"""`tvix-store key generate|public`, held against the real `nix key`."""

from __future__ import annotations

import stat
import subprocess
from pathlib import Path

import pytest

from tests import programs
from tests.cli.program import Program
from tvix_store import SecretKey

pytestmark = pytest.mark.nix


def nix_key(*arguments: str, data: bytes = b"") -> bytes:
    command = [programs.require("nix"), "--extra-experimental-features", "nix-command", "key", *arguments]
    return subprocess.run(command, input=data, capture_output=True, check=True).stdout


def test_nix_reads_our_secret_key(tvix_store: Program) -> None:
    ours = tvix_store("key", "generate", "ours.example-1")
    assert nix_key("convert-secret-to-public", data=ours.encode()).decode() == tvix_store("key", "public", data=ours.encode())


def test_we_read_nixs_secret_key(tvix_store: Program) -> None:
    theirs = nix_key("generate-secret", "--key-name", "theirs.example-1")
    assert tvix_store.run("key", "public", data=theirs).output == nix_key("convert-secret-to-public", data=theirs)


def test_a_key_ends_with_its_last_character_as_nixs_does(tvix_store: Program) -> None:
    theirs = nix_key("generate-secret", "--key-name", "a-1")
    ours = tvix_store.run("key", "generate", "a-1").output
    assert len(ours) == len(theirs)
    assert ours.startswith(b"a-1:")
    assert ours.endswith(b"==")


def test_every_key_is_a_new_one(tvix_store: Program) -> None:
    assert tvix_store("key", "generate", "a-1") != tvix_store("key", "generate", "a-1")


def test_a_file_with_a_key_is_its_owners_alone(tvix_store: Program, tmp_path: Path) -> None:
    file = tmp_path / "secret-key"
    assert tvix_store.run("key", "generate", "a-1", "--out", file, under=("sh", "-c", 'umask 0; exec "$@"', "sh")).output == b""
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert tvix_store("key", "public", file) == str(SecretKey.parse(file.read_text()).public)


@pytest.mark.parametrize(("mode", "warning"), [(0o600, ""), (0o640, ""), (0o644, "read"), (0o604, "read"), (0o620, "change")])
def test_a_file_with_a_key_that_others_may_read_is_warned_of(tvix_store: Program, tmp_path: Path, mode: int, warning: str) -> None:
    file = tmp_path / "secret-key"
    tvix_store("key", "generate", "a-1", "--out", file)
    file.chmod(mode)
    ended = tvix_store.run("key", "public", file)
    assert ended.code == 0
    assert (f"{file} has mode {mode:o}: others than its owner may {warning} this" in ended.error) == bool(warning)
    assert bool(ended.error) == bool(warning)


def test_a_file_with_a_key_is_not_overwritten(tvix_store: Program, tmp_path: Path) -> None:
    file = tmp_path / "secret-key"
    file.write_text("in use")
    ended = tvix_store.run("key", "generate", "a-1", "--out", file)
    assert (ended.code, ended.output, ended.error) == (5, b"", f"tvix-store: error: {file} exists; it is not overwritten\n")
    assert file.read_text() == "in use"


@pytest.mark.parametrize("name", ["", "a b", "a:b", "a\n", "é", "n" * 257])
def test_a_name_that_no_key_may_have_is_refused(tvix_store: Program, name: str) -> None:
    ended = tvix_store.run("key", "generate", name)
    assert (ended.code, ended.output) == (3, b"")
    assert "is not a key name" in ended.error


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "expected name:base64"),
        (b"a-1:\xff", "is not base64"),
        (b"a-1:AAAA", "has 3 bytes, expected 64"),
        (str(SecretKey.from_seed("a-1", bytes(32)).public).encode(), "has 32 bytes, expected 64"),
    ],
)
def test_what_is_no_secret_key_is_refused(tvix_store: Program, data: bytes, reason: str) -> None:
    ended = tvix_store.run("key", "public", data=data)
    assert (ended.code, ended.output) == (3, b"")
    assert reason in ended.error
