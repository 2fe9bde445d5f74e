"""Compositions at the command line: which one is in force, and how it is shown and checked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.program import Ended, run_in_process

_ONE = '[blobservices]\nroot = "{0}"\n[directoryservices]\nroot = "{0}"\n[pathinfoservices]\nroot = "{0}"\n'


class Place:
    """A directory with configuration files, in which the program runs."""

    def __init__(self, here: Path) -> None:
        self.here = here
        self.home = here / "home/.config/tvix-store"
        self.home.mkdir(parents=True)

    def run(self, *words: str, **variables: str) -> Ended:
        environment = {"PATH": "/usr/bin:/bin", "HOME": str(self.here / "home"), **variables}
        return run_in_process(*words, directory=self.here, environment=environment)

    def place_of(self, *words: str, **variables: str) -> str:
        """The address of the path infos of the store that a command would open."""
        ended = self.run("config", "show", "--composition", "--json", *words, **variables)
        assert ended.code == 0, ended.error
        root = json.loads(ended.output)["pathinfoservices"]["root"]
        return str(root if isinstance(root, str) else root.get("path") or root["url"])


@pytest.fixture
def place(tmp_path: Path) -> Place:
    for name in ("a", "b"):
        table = f'{{type = "local", path = "./{name}"}}'
        (tmp_path / f"{name}.toml").write_text(_ONE.replace('"{0}"', table))
    return Place(tmp_path)


def test_the_better_place_counts_and_within_one_the_composition(place: Place) -> None:
    assert place.place_of(TVIX_STORE="./c", TVIX_STORE_COMPOSITION="./a.toml") == "./a"
    assert place.place_of(TVIX_STORE="./c", EXPERIMENTAL_STORE_COMPOSITION="./a.toml") == "./a"
    assert place.place_of("--experimental-store-composition", "./b.toml", TVIX_STORE_COMPOSITION="./a.toml") == "./b"
    assert place.place_of("--store", "./c", "--store-composition", "./b.toml") == "./b"
    assert place.place_of("--store", "./c", TVIX_STORE_COMPOSITION="./a.toml") == "./c"
    config = place.home / "config.toml"
    config.write_text(_ONE.format("./d"))
    assert place.place_of() == "./d"
    assert place.place_of(TVIX_STORE="./c") == "./c"
    config.write_text('store = "./e"\n' + _ONE.format("./d"))
    assert place.place_of() == "./d"
    config.write_text('store-composition = "./b.toml"\n')
    assert place.place_of() == "./b"


def test_commands_work_on_a_composition(place: Place) -> None:
    (place.here / "file").write_text("text")
    imported = place.run("import", "file", TVIX_STORE_COMPOSITION="./a.toml")
    assert imported.error.startswith(f"tvix-store: made a new store in {place.here}/a\n")
    assert place.run("list", "--store-composition", "a.toml").output == imported.output
    assert place.run("list", "--store", "./a").output == imported.output
    (place.home / "config.toml").write_text((place.here / "a.toml").read_text())
    assert place.run("list").output == imported.output
    # A backup, and named caches, are those of the one directory.
    assert place.run("backup", "./backup").code == 0
    assert place.run("list", "--store", "./backup").output == imported.output


def test_what_is_shown_may_be_read_again(place: Place) -> None:
    stores = place.here / "stores.toml"
    stores.write_text(
        """
[blobservices.root]
type = "cache"
far = "a name"
size = "64M"
[blobservices."a name"]
type = "objectstore"
object_store_url = "s3://bucket/prefix?secret_access_key=hidden"
object_store_options = {access_key_id = "hidden", region = "x"}
[directoryservices]
root = "grpc+https://me:hidden@cache.example.org"
[pathinfoservices.root]
type = "nix"
base_url = "https://me:hidden@cache.example.org"
public_keys = "cache.nixos.org-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY="
"""
    )
    stores.chmod(0o600)
    shown = place.run("config", "show", "--composition", "--store-composition", "stores.toml")
    assert "hidden" not in shown.output.decode()
    assert shown.error == ""
    stores.chmod(0o644)
    warned = place.run("config", "show", "--composition", "--store-composition", "stores.toml").error
    assert "stores.toml has mode 644: everybody may read the password in this configuration" in warned
    stores.chmod(0o600)
    (place.here / "again.toml").write_bytes(shown.output)
    assert place.run("config", "show", "--composition", "--store-composition", "again.toml").output == shown.output
    whole = place.run("config", "show", "--store-composition", "stores.toml").output.decode()
    assert whole.endswith("\n# the store\n" + shown.output.decode())
    options = json.loads(place.run("config", "show", "--json", "--store-composition", "stores.toml").output)
    assert options["composition"]["blobservices"]["a name"]["object_store_options"] == {"access_key_id": "***", "region": "***"}


def test_a_check_tells_what_can_be_told_without_opening(place: Place) -> None:
    stores = place.here / "stores.toml"
    key = place.run("key", "generate", "cache-1", "--out", "key")
    assert key.code == 0
    stores.write_text(
        _ONE.format("./store")
        + 'root2 = "memory://"\n'
        + '[pathinfoservices.unused]\ntype = "keyfile-signing"\ninner = "root"\nkeyfile = "./key"\n'
    )
    checked = place.run("config", "check", "stores.toml")
    assert checked.code == 0
    assert [line.partition(": ")[2] for line in checked.lines] == [
        f"[blobservices.root]: there is no store in {place.here}/store yet",
        f"[directoryservices.root]: there is no store in {place.here}/store yet",
        f"[pathinfoservices.root]: there is no store in {place.here}/store yet",
        "[pathinfoservices.root2] is not used: nothing refers to it",
        "[pathinfoservices.unused] is not used: nothing refers to it",
        "good",
    ]
    (place.here / "key").chmod(0o644)
    exposed = place.run("config", "check", "stores.toml")
    assert "[pathinfoservices.unused]: key has mode 644: others than its owner may read this secret key" in exposed.output.decode()
    (place.here / "key").write_text("nonsense")
    checked = place.run("config", "check", TVIX_STORE_COMPOSITION="stores.toml")
    assert checked.code == 2
    assert checked.lines[0].startswith("stores.toml:11: [pathinfoservices.unused] keyfile: key holds no secret key")
    assert not (place.here / "store").exists()


def test_a_check_may_open_each_part(place: Place) -> None:
    opened = place.run("config", "check", "--open", "--store-composition", "a.toml")
    assert opened.code == 12
    assert opened.lines[-1] == f"[blobservices.root]: there is no store in {place.here}/a"
    assert not (place.here / "a").exists()
    (place.here / "file").touch()
    place.run("import", "file", "--store-composition", "a.toml")
    (place.home / "config.toml").write_text((place.here / "a.toml").read_text())
    opened = place.run("config", "check", "--open")
    assert opened.code == 0
    assert opened.lines[-1] == "[blobservices.root]: it serves"


def test_a_wrong_composition_in_the_configuration_ends_the_command(place: Place) -> None:
    (place.home / "config.toml").write_text(_ONE.format("./x") + '[blobservices.near]\ntype = "locla"\n[pathinfoservice.x]\n')
    ended = place.run("list")
    assert ended.code == 2
    assert "unknown key; did you mean pathinfoservices?" in ended.error
    (place.home / "config.toml").write_text(_ONE.format("./x") + '[blobservices.near]\ntype = "locla"\n')
    ended = place.run("list")
    assert ended.code == 2
    assert f"{place.home}/config.toml:8: [blobservices.near] type: unknown type 'locla'" in ended.error
