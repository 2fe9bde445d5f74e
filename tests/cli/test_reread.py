"""Reading the configuration of a running command anew."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from tests.cli.configured import parsed, places
from tvix_store.cli.reread import Reread

__all__ = ["places"]  # a fixture


def test_changes_are_told_and_what_needs_a_restart(
    places: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    user, system = places
    user.write_text("store = '/a'\n[daemon]\npriority = 1\nallow-host = ['a']\nworkers = 2\nbody-timeout = 5")
    monkeypatch.setenv("TVIX_STORE_DAEMON_WORKERS", "3")
    reread = Reread(parsed("daemon", arguments=("--body-timeout", "6")))
    reloadable = {"priority", "workers", "body-timeout"}
    assert reread.changes(reloadable) == {}

    user.write_text("store = '/a'\n[daemon]\npriority = 2\nallow-host = ['a']\nworkers = 9\nbody-timeout = 9")
    assert reread.changes(reloadable) == {"priority": 2}  # the others are given on the command line, and in a variable
    assert reread.changes(reloadable) == {}
    assert caplog.messages == []

    user.write_text("store = '/b'\n[daemon]\nallow-host = ['a', 'b']")
    told = "changed in the configuration, but not before the next start: --allow-host, --store"
    assert reread.changes(reloadable) == {"priority": None}
    assert caplog.messages == [told]
    assert reread.changes(reloadable) == {}
    assert caplog.messages == [told, told]

    caplog.clear()
    user.write_text("store = '/a'\n[daemon]\nallow-host = ['a']")
    system.write_text("[daemon]\npriority = 7")
    assert reread.changes(reloadable) == {"priority": 7}
    assert caplog.messages == []


def test_a_composition_that_has_changed_waits_for_the_next_start(
    places: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    user, _ = places
    told = "changed in the configuration, but not before the next start: the composition"
    user.write_text("[blobservices]\nroot = '/a'")
    reread = Reread(parsed("daemon"))
    user.write_text("[blobservices]\nroot = '/a'\n[daemon]")
    assert reread.changes(()) == {}
    assert caplog.messages == []
    user.write_text("[blobservices]\nroot = '/b'")
    assert reread.changes(()) == {}
    assert caplog.messages == [told]
    stores = tmp_path / "stores.toml"
    stores.write_text("")
    monkeypatch.setenv("TVIX_STORE_COMPOSITION", str(stores))
    reread = Reread(parsed("daemon"))
    stores.write_text("#")
    reread.changes(())
    assert caplog.messages == [told, told]


def test_a_file_that_is_wrong_changes_nothing(places: tuple[Path, Path], caplog: pytest.LogCaptureFixture) -> None:
    user, _ = places
    user.write_text("[daemon]\npriority = 1")
    reread = Reread(parsed("daemon"))
    for text, what in {
        "nonsense": "not TOML",
        "[daemon]\npriority = -1": "daemon.priority: -1 is too little",
        "[daemon]\npriority = 2\ntls-key = 'credential:a'": "needs LoadCredential=a",
    }.items():
        caplog.clear()
        user.write_text(text)
        assert reread.changes({"priority"}) == {}
        (record,) = caplog.records
        assert record.levelno == logging.ERROR
        assert "the configuration stays as it was" in record.getMessage()
        assert what in record.getMessage()
    user.write_text("[daemon]\npriority = 2")
    assert reread.changes({"priority"}) == {"priority": 2}


def test_a_credential_is_read_anew(places: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    (tmp_path / "upstreams").write_text("https://a")
    places[0].write_text("[daemon]\nsubstituters = ['credential:upstreams']")
    reread = Reread(parsed("daemon"))
    (tmp_path / "upstreams").write_text("https://b")
    assert reread.changes({"substituters"}) == {"substituters": ("https://b",)}
