"""`credential:NAME` in place of a secret's file, or of a text that holds a secret."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from tests.cli.configured import parsed, places
from tests.cli.program import Program
from tvix_store.cli.input import SecretPath
from tvix_store.cli.invocation import Invocation

__all__ = ["places"]  # a fixture


@pytest.fixture
def credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, places: tuple[Path, Path]) -> Path:
    directory = tmp_path / "credentials"
    directory.mkdir()
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(directory))
    return directory


def test_keys_and_addresses_may_be_credentials(credentials: Path, places: tuple[Path, Path]) -> None:
    for name in ("key", "tls"):
        (credentials / name).touch()
    (credentials / "store").write_text("grpc+https://user:word@host\n")
    (credentials / "upstreams").write_text("https://a https://b\n")
    places[0].write_text(
        "store = 'credential:store'\n"
        "[daemon]\nsigning-key-file = ['credential:key']\ntls-key = 'credential:tls'\nsubstituters = ['credential:upstreams']"
    )
    context = parsed("daemon")
    assert context.params["signing_key_files"] == (credentials / "key",)
    assert context.params["tls_key"] == credentials / "tls"
    assert context.params["substituters"] == ("https://a https://b",)
    assert context.ensure_object(Invocation).addresses()["blobs"] == "grpc+https://user:word@host"


def test_paths_in_a_variable_are_separated_by_colons() -> None:
    split = SecretPath().split_envvar_value
    assert split("/a:/b") == ["/a", "/b"]
    assert split("credential:a:/b:credential:c") == ["credential:a", "/b", "credential:c"]
    assert split("/credential:/b") == ["/credential", "/b"]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("credential:absent", "is not among the credentials"),
        ("credential:../key", "does not name a credential"),
        ("credential:/etc/passwd", "does not name a credential"),
        ("credential:", "does not name a credential"),
    ],
)
@pytest.mark.parametrize("option", ["--tls-key", "--store", "--substituters"])
def test_credentials_that_are_not_there_are_refused(credentials: Path, value: str, message: str, option: str) -> None:
    with pytest.raises(click.BadParameter, match=message):
        parsed("daemon", arguments=(option, value))


def test_a_credential_that_is_no_text_is_no_address(credentials: Path) -> None:
    (credentials / "binary").write_bytes(b"\xff")
    (credentials / "directory").mkdir()
    for name, message in {"binary": "is not text", "directory": "Is a directory"}.items():
        with pytest.raises(click.BadParameter, match=message):
            parsed("list", arguments=("--store", f"credential:{name}"))


def test_without_systemd_the_message_says_what_is_missing(tvix_store: Program) -> None:
    ended = tvix_store.run("list", "--store", "credential:store")
    assert ended.code == 2
    assert "needs LoadCredential=store:/path in the unit of systemd" in ended.error


def test_paths_are_signed_with_a_credential(tvix_store: Program, tree: Path) -> None:
    path = tvix_store("import", tree)
    (tvix_store.directory / "cache-key").write_text(tvix_store("key", "generate", "cache-1"))
    (tvix_store.directory / "cache-key").chmod(0o600)
    (tvix_store.directory / "c.toml").write_text("[path-info.sign]\nkey-file = 'credential:cache-key'")
    tvix_store.environment |= {"CREDENTIALS_DIRECTORY": str(tvix_store.directory), "TVIX_STORE_CONFIG": "c.toml"}
    assert tvix_store("path-info", "sign", path) == path
    assert "cache-1:" in tvix_store("info", path)


def test_a_credential_on_the_command_line_shows_nobody_a_password(tvix_store: Program) -> None:
    url = "http://me:secret@127.0.0.1:9?trusted=1"
    (tvix_store.directory / "upstream").write_text(url)
    tvix_store.environment["CREDENTIALS_DIRECTORY"] = str(tvix_store.directory)
    command = ("daemon", "-l", "nonsense", "--substituters")
    by_name, by_url = tvix_store.run(*command, "credential:upstream"), tvix_store.run(*command, url)
    assert (by_name.code, by_url.code) == (3, 3)
    assert "ps shows" in by_url.error
    assert "ps shows" not in by_name.error
    assert "secret" not in by_name.error + by_url.error
