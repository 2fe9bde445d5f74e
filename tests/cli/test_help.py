"""The help texts, and that showing them needs little."""

from __future__ import annotations

import subprocess
import sys

import click
import pytest

from tests.cli.program import Program
from tvix_store import __version__
from tvix_store.cli.lazy_group import LazyGroup
from tvix_store.cli.program import program


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
    assert "--store ADDRESS" in text or words.endswith("completion")


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
    assert tvix_store("--version") == f"tvix-store {__version__}"


def test_without_a_command_the_help_is_shown_as_a_mistake(tvix_store: Program) -> None:
    ended = tvix_store.run()
    assert ended.code == 2
    assert ended.error.startswith("Usage: tvix-store")
