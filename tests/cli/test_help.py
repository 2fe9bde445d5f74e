"""The help texts, and that showing them needs little."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import click
import pytest

from tests.cli.program import Program
from tvix_store import __version__
from tvix_store.cli.lazy_group import LazyGroup
from tvix_store.cli.program import program

STORELESS = tuple(f"tvix-store {name}" for name in ("completion", "config", "help", "hook", "key", "push", "use", "watch-store"))
"""The commands that open no store, and so don't show its options."""


def commands() -> list[tuple[str, click.Command]]:
    """Every command, by the words that call it."""
    found: list[tuple[str, click.Command]] = []
    waiting: list[tuple[str, click.Command]] = [("tvix-store", program())]
    while waiting:
        words, command = waiting.pop()
        found.append((words, command))
        if isinstance(command, LazyGroup):
            with click.Context(command) as context:
                names = command.list_commands(context)
                waiting += [(f"{words} {name}", made) for name in names if (made := command.get_command(context, name))]
    return found


@pytest.mark.parametrize(("words", "command"), commands(), ids=lambda value: value if isinstance(value, str) else "")
def test_the_help_of_a_command_has_an_example_and_fits_a_terminal(words: str, command: click.Command) -> None:
    text = command.get_help(click.Context(command, info_name=words))
    assert "    tvix-store " in text or isinstance(command, LazyGroup)
    assert text.isascii()
    assert not re.search(r"RANGE|FILENAME|x[<>]=?|=x\b", text)  # click's words for numbers and files
    assert ("--store ADDRESS" in text) == (not words.startswith(STORELESS))


def test_help_names_every_command(tvix_store: Program) -> None:
    text = tvix_store("--help")
    assert tvix_store("-h") == text
    for words, _ in commands():
        if words.count(" ") == 1:
            assert f"\n  {words.partition(' ')[2]} " in text


def test_help_is_shown_without_loading_what_commands_need() -> None:
    code = "import sys; from tvix_store.cli.program import run_program; run_program(['--help']); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"asyncio", "blake3", "google", "h2corn", "lmdb", "nacl", "rich", "zstandard"} & set(loaded)


def test_the_version_is_told(tvix_store: Program) -> None:
    assert tvix_store("--version") == tvix_store("-V") == f"tvix-store {__version__}"


def help_of(*words: str) -> str:
    """The help of a command, for a terminal of 80 columns."""
    _, command = next(each for each in commands() if each[0] == " ".join(("tvix-store", *words)))
    return command.get_help(click.Context(command, terminal_width=80))


def test_help_of_a_command_is_what_its_option_shows(tvix_store: Program) -> None:
    assert tvix_store("help") == tvix_store("--help")
    assert tvix_store("help", "pin", "add") == tvix_store("pin", "add", "--help")


def test_help_of_an_unknown_command_names_the_known_ones(tvix_store: Program) -> None:
    ended = tvix_store.run("help", "imprt")
    assert ended.code == 2
    assert "Did you mean 'import'?" in ended.error
    assert "tvix-store list has no commands below it" in tvix_store.run("help", "list", "all").error


def test_the_options_of_the_daemon_stand_below_headings_and_are_short() -> None:
    text = help_of("daemon")
    assert re.findall(r"^(\w.*):$", text, re.MULTILINE) == [
        "Listening",
        "Access",
        "The binary cache",
        "Signing",
        "Upstreams",
        "Limits",
        "Collecting and scrubbing",
        "Observing",
        "The store",
        "General",
    ]
    for option in re.split(r"^  (?=-)", text.partition("Listening:")[2].partition("The store:")[0], flags=re.MULTILINE)[1:]:
        name, *lines = re.split(r"\s{2,}", option.partition("\n\n")[0].replace("  [", " [").strip())
        assert len(lines) <= 2, name


def test_the_help_names_the_directory_of_the_default_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_DATA_HOME", "/home/somebody/data")
    assert "default: /home/somebody/data/tvix-store]" in " ".join(help_of("list").split())
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert "default: /var/lib/tvix-store]" in " ".join(help_of("list").split())


def test_without_a_command_the_help_is_shown_as_a_mistake(tvix_store: Program) -> None:
    ended = tvix_store.run()
    assert ended.code == 2
    assert ended.error.startswith("Usage: tvix-store")
