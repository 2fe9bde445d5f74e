"""Commands of the program with their options read, but not run; and configuration files of a test's own."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click
import pytest

from tvix_store.cli import config_paths
from tvix_store.cli.invocation import Invocation
from tvix_store.cli.program import program
from tvix_store.cli.settings import commands_of


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """The files of the user and of the system, which are not there yet; and none of this machine's variables."""
    for name in os.environ:
        if name.startswith("TVIX_STORE") or name in {"NIX_REMOTE", "NIX_STORE_DIR", "CREDENTIALS_DIRECTORY"}:
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    (tmp_path / "home/tvix-store").mkdir(parents=True)
    (tmp_path / "etc").mkdir()
    monkeypatch.setattr(config_paths, "SYSTEM", str(tmp_path / "etc/config.toml"))
    return tmp_path / "home/tvix-store/config.toml", tmp_path / "etc/config.toml"


def contexts(words: Sequence[str], *arguments: str, before: Sequence[str] = ()) -> Iterator[click.Context]:
    """The contexts of the program, of the groups and of the command, with `arguments` read, and `before` before the words."""
    command: click.Command = program()
    context = command.make_context("tvix-store", [*before, *words], obj=Invocation())
    yield context
    for place, name in enumerate(words):
        assert isinstance(command, click.Group)
        made = command.get_command(context, name)
        assert made is not None
        command = made
        rest = [*words[place + 1 :]] if isinstance(command, click.Group) else [*arguments]
        context = command.make_context(name, rest, parent=context)
        yield context


def parsed(*words: str, arguments: Sequence[str] = (), before: Sequence[str] = ()) -> click.Context:
    """The context of a command with its options read. Its `obj` is the Invocation."""
    *_, last = contexts(words, *arguments, before=before)
    return last


def value(context: click.Context, option: click.Option) -> Any:
    """The value of one of the options of a command."""
    if option.expose_value:
        return context.params[option.name or ""]
    return context.ensure_object(Invocation).value(option.name or "")


COMMANDS = [(words, command) for words, command in commands_of(program()) if not isinstance(command, click.Group)]
