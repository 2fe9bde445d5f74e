"""Credentials for servers, from a netrc file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tvix_store.backends.grpc.address import ServerAddress
from tvix_store.client_environment.credentials import Credentials, find_credentials
from tvix_store.errors import InvalidError


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NETRC", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


def test_they_are_those_of_the_host_in_the_home_or_the_named_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_credentials("cache.example.org") is None
    (tmp_path / ".netrc").write_text("machine cache.example.org login any password one\n")
    assert find_credentials("cache.example.org") == Credentials("any", "one")
    assert find_credentials("other.example.org") is None
    (tmp_path / "mine").write_text("machine cache.example.org login any password two\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "mine"))
    assert find_credentials("cache.example.org") == Credentials("any", "two")


def test_those_of_nix_are_found_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("NIX_CONF_DIR", str(tmp_path / "etc"))
    monkeypatch.delenv("NIX_USER_CONF_FILES", raising=False)
    (tmp_path / "config/nix").mkdir(parents=True)
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/netrc").write_text("machine a login any password system\nmachine b login any password system\n")
    (tmp_path / "config/nix/netrc").write_text("machine b login any password user\nmachine c login any password user\n")
    (tmp_path / ".netrc").write_text("machine c login any password own\n")
    assert [found.password for host in "abc" if (found := find_credentials(host))] == ["system", "user", "own"]
    (tmp_path / "named").write_text("machine d login any password named\n")
    (tmp_path / "config/nix/nix.conf").write_text(f"netrc-file = {tmp_path}/named\n")
    assert find_credentials("d") == Credentials("any", "named")
    assert find_credentials("b") == Credentials("any", "system")
    monkeypatch.setenv("NETRC", str(tmp_path / "named"))
    assert find_credentials("a") is None


def test_who_has_no_home_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", home)
    assert find_credentials("cache.example.org") is None


def test_a_home_that_is_hidden_has_none_and_a_named_file_must_be_readable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def netrc(_: str) -> object:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("netrc.netrc", netrc)
    assert find_credentials("cache.example.org") is None
    monkeypatch.setenv("NETRC", str(tmp_path / "mine"))
    with pytest.raises(InvalidError, match=r"cannot read .*/mine: "):
        find_credentials("cache.example.org")


def test_a_malformed_file_is_one_line_without_the_password(tmp_path: Path) -> None:
    (tmp_path / ".netrc").write_text("machine cache.example.org login any pasword tvix_secret\n")
    with pytest.raises(InvalidError) as caught:
        find_credentials("cache.example.org")
    assert "tvix_secret" not in str(caught.value)
    assert os.linesep not in str(caught.value)


def test_an_address_prefers_its_own_and_shows_none(tmp_path: Path) -> None:
    (tmp_path / ".netrc").write_text("default login any password from-the-file\n")
    own = ServerAddress.parse("grpc+https://any:from-the-address@cache.example.org").with_netrc()
    found = ServerAddress.parse("grpc+https://cache.example.org").with_netrc()
    assert own.authorization != found.authorization
    assert None not in (own.authorization, found.authorization)
    for address in (own, found):
        assert str(address.authorization) not in repr(address)
        assert "from-the" not in repr(address)
    assert ServerAddress.parse("grpc+unix:///run/store.sock").with_netrc().authorization is None
