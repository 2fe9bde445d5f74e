"""The completion scripts, in the shells that they are for."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete

from tests import programs
from tests.cli.configured import places  # noqa: F401 - a fixture
from tests.cli.program import TVIX_STORE, Program
from tvix_store import import_tree, open_store
from tvix_store.access.token_file import TokenFile
from tvix_store.access.tokens import issue
from tvix_store.cli.program import COMPLETION, NAME, program
from tvix_store.model.grant import Scope
from tvix_store.operations.collection.pins import Keep, Pins, pin

BASH = """
    source <(tvix-store completion bash)
    COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
    _tvix_store_completion tvix-store
    printf '%s\\n' "${COMPREPLY[@]}"
"""
ZSH = """
    compdef() { }
    compadd() { print -rl -- $completions }
    _describe() { print -rl -- ${completions_with_descriptions%%:*} }
    source <(tvix-store completion zsh)
    words=("$@") CURRENT=$#
    _tvix_store_completion
"""
FISH = """
    tvix-store completion fish | source
    complete -C "$argv"
"""


def said(tvix_store: Program, command: Sequence[str]) -> str:
    """What a command prints to which the program is known."""
    environment = {**tvix_store.environment, "PATH": f"{TVIX_STORE.parent}:{tvix_store.environment['PATH']}"}
    done = subprocess.run(command, cwd=tvix_store.directory, env=environment, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return done.stdout


def completed(tvix_store: Program, *words: str) -> set[str]:
    """What bash offers for the last of the words."""
    return set(said(tvix_store, ["bash", "-c", BASH, "bash", "tvix-store", *words]).split())


def test_bash_completes_commands(tvix_store: Program) -> None:
    assert completed(tvix_store, "s") == {"stat", "stats"}
    assert completed(tvix_store, "path-info", "") == {"get", "put", "rewrite", "sign", "verify"}


def test_bash_completes_options_and_their_values(tvix_store: Program) -> None:
    assert completed(tvix_store, "export", "--fo") == {"--format"}
    assert completed(tvix_store, "export", "--format", "") == {"dir", "nar", "tar"}
    assert "--store" in completed(tvix_store, "--st")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_shell_has_its_script(tvix_store: Program, shell: str) -> None:
    assert f"{shell}_complete" in tvix_store("completion", shell)


def test_another_shell_is_refused(tvix_store: Program, tmp_path: Path) -> None:
    assert tvix_store.run("completion", "tcsh").code == 2


class Shelf:
    """A store with two paths, of which one is pinned, a named cache, and a token."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.paths: list[str] = []
        self.token = ""

    async def fill(self) -> None:
        async with await open_store(str(self.directory)) as store:
            for name in ("hello", "other"):
                (self.directory.parent / name).write_text(name)
                done = await import_tree(store, self.directory.parent / name)
                self.paths.append(done.store_path.absolute())
            assert store.records is not None
            await pin(store, Pins(store.records), "release-1", [done.store_path], Keep())
            await pin(store, Pins(store.records), "gone", [done.store_path], Keep())
            await Pins(store.records).remove("gone")
        async with await open_store(f"local://{self.directory}?cache=team-a"):
            pass
        _, record = issue(Scope.PULL)
        TokenFile(self.directory / "tokens.json").change(lambda tokens: tokens.with_token(record))
        self.token = record.id


@pytest.fixture
async def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, places: tuple[Path, Path]) -> Shelf:  # noqa: F811
    made = Shelf(tmp_path / "store")
    await made.fill()
    monkeypatch.setenv("TVIX_STORE", str(made.directory))
    return made


def offered(*words: str) -> list[str]:
    """What the program offers for the last of the words."""
    found = ShellComplete(program(), {}, NAME, COMPLETION).get_completions(list(words[:-1]), words[-1])
    return sorted(each.value for each in found if each.type == "plain")


@pytest.mark.parametrize(
    "words",
    [("ls",), ("cat", "another"), ("info",), ("check",), ("pin", "add", "v1"), ("path-info", "sign"), ("copy",), ("export",)],
)
def test_store_paths_complete(shelf: Shelf, words: tuple[str, ...]) -> None:
    assert offered(*words, "") == offered(*words, "/nix/st") == sorted(shelf.paths)


def test_the_begin_of_a_path_or_of_a_hash_completes(shelf: Shelf) -> None:
    for path in shelf.paths:
        for length in (11, 12, 15, 42, 43, 45, len(path)):
            assert path in offered("ls", path[:length])
            base = path.removeprefix("/nix/store/")
            assert base in offered("ls", path[:length].removeprefix("/nix/store/")) or length == 11
        assert offered("ls", path[:14]) == [path]
    for nothing in ("/etc", "b3:", "/nix/store/u", "/nix/store/!", f"{shelf.paths[0]}/", f"{shelf.paths[0]}-"):
        assert offered("ls", nothing) == []


def test_a_removed_path_is_not_offered(tvix_store: Program, shelf: Shelf) -> None:
    tvix_store("delete", shelf.paths[0])
    assert offered("ls", "") == shelf.paths[1:]


def test_names_of_pins_tokens_caches_and_commands_complete(shelf: Shelf) -> None:
    assert offered("pin", "remove", "") == offered("pin", "list", "rel") == ["release-1"]
    assert offered("token", "revoke", "") == [shelf.token]
    assert offered("token", "create", "--cache", "te") == offered("daemon", "--default-cache", "") == ["team-a"]
    assert offered("help", "pin", "") == ["add", "list", "remove"]
    assert offered("help", "pin", "add", "") == []


def test_the_store_of_an_option_or_of_a_file_is_asked(
    shelf: Shelf,
    places: tuple[Path, Path],  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("TVIX_STORE")
    assert offered("--store", str(shelf.directory), "ls", "") == offered("ls", "--store", str(shelf.directory), "") != []
    places[0].write_text(f'store = "{shelf.directory}"')
    assert offered("ls", "") == sorted(shelf.paths)


def test_the_store_of_a_composition_is_asked(shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TVIX_STORE", raising=False)
    stores = tmp_path / "stores.toml"
    tables = ("blobservices", "directoryservices", "pathinfoservices")
    stores.write_text("".join(f'[{table}]\nroot = "{shelf.directory}"\n' for table in tables))
    for option in ("--store-composition", "--config"):
        assert offered("info", option, str(stores), "") == offered("info", "--store", str(shelf.directory), "")


def test_directories_complete_an_address() -> None:
    for words in (("--store",), ("ls", "--store"), ("copy", "--to"), ("ls", "--blob-service-addr")):
        [item] = ShellComplete(program(), {}, NAME, COMPLETION).get_completions(list(words), "./st")
        assert (item.type, item.value) == ("dir", "./st")


def test_bash_zsh_and_fish_offer_store_paths(tvix_store: Program, shelf: Shelf) -> None:
    words = ["tvix-store", "ls", "/nix/store/"]
    assert completed(tvix_store, *words[1:]) == set(shelf.paths)
    assert set(said(tvix_store, [programs.require("zsh"), "-f", "-c", ZSH, "zsh", *words]).split()) == set(shelf.paths)
    assert set(said(tvix_store, [programs.require("fish"), "--no-config", "-c", FISH, " ".join(words)]).split()) == set(shelf.paths)


@pytest.mark.parametrize("address", ["./nothing", "./text", "grpc+http://127.0.0.1:9", "what:is/this"])
def test_what_cannot_be_read_is_silent_and_makes_no_store(tvix_store: Program, address: str) -> None:
    (tvix_store.directory / "text").write_text("no store")
    before = sorted(tvix_store.directory.rglob("*"))
    assert completed(tvix_store, "--store", address, "ls", "") == set()
    assert sorted(tvix_store.directory.rglob("*")) == before


def test_a_server_that_says_nothing_is_not_waited_for(tvix_store: Program) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:
        began = time.monotonic()
        address = f"grpc+http://127.0.0.1:{silent.getsockname()[1]}"
        assert completed(tvix_store, "--store", address, "ls", "") == set()
        assert time.monotonic() - began < 30  # on a busy machine; it is a second
