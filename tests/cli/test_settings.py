"""Every option of every command: from a variable, and from a file."""

from __future__ import annotations

import subprocess
from collections import defaultdict
from pathlib import Path
from typing import Any

import click
import pytest

from tests.cli.configured import COMMANDS, parsed, places, value
from tvix_store.cli.config_show import toml
from tvix_store.cli.configured import Unconfigured
from tvix_store.cli.input import ByteSize
from tvix_store.cli.program import program
from tvix_store.cli.settings import SharedOption, TableType, commands_of, key, settings, variables
from tvix_store.cli.token_create import Expiry

__all__ = ["places"]  # a fixture

EVERY = [
    pytest.param(words, command, option, id=f"{'-'.join(words)}--{name}")
    for words, command in COMMANDS
    for name, option in settings(command).items()
    if option.expose_value or isinstance(option, SharedOption)  # others are taken, and change nothing
]


def arguments(command: click.Command, tmp_path: Path) -> list[str]:
    """The arguments that a command needs."""
    file = tmp_path / "argument"
    file.touch()
    needed = [each for each in command.params if isinstance(each, click.Argument) and each.required]
    return ["bash" if isinstance(each.type, click.Choice) else str(file) for each in needed]


def example(option: click.Option, tmp_path: Path) -> Any:
    """A value that the option takes, and that is not its default."""
    kind = option.type
    if isinstance(kind, click.types.BoolParamType):
        return not option.default if isinstance(option.default, bool) else True
    if isinstance(kind, ByteSize):
        return "1G"
    if isinstance(kind, click.IntRange | click.FloatRange):
        return min((kind.min or 0) + 3, kind.max if kind.max is not None else float("inf"))
    if isinstance(kind, click.types.IntParamType):
        return 7
    if isinstance(kind, click.types.FloatParamType):
        return 7.5
    if isinstance(kind, TableType | Expiry):
        return kind.example
    if isinstance(kind, click.Choice):
        return list(kind.choices)[-1]
    if isinstance(kind, click.File):
        (tmp_path / "input").touch()
        return str(tmp_path / "input")
    return "/some/where" if isinstance(kind, click.Path) else "some:thing"


def converted(option: click.Option, written: Any) -> Any:
    """What the command gets of a value, as far as types of their own change it."""
    return (
        option.type_cast_value(click.Context(click.Command(None)), written)
        if isinstance(option.type, TableType | Expiry | ByteSize)
        else written
    )


def plain(found: Any) -> Any:
    """A value as it was written."""
    if isinstance(found, tuple | list):
        return [plain(each) for each in found]
    return found.name if hasattr(found, "read") else str(found) if isinstance(found, Path) else found


def required(command: click.Command, besides: click.Option, tmp_path: Path) -> dict[str, Any]:
    return {name: example(each, tmp_path) for name, each in settings(command).items() if each.required and each is not besides}


def written(values: dict[str, Any], words: tuple[str, ...]) -> str:
    return f"[{'.'.join(words)}]\n" + "".join(f"{name} = {toml(each)}\n" for name, each in values.items())


@pytest.mark.parametrize(("words", "command", "option"), EVERY)
def test_every_option_may_stand_in_a_file(
    words: tuple[str, ...], command: click.Command, option: click.Option, places: tuple[Path, Path], tmp_path: Path
) -> None:
    expected = example(option, tmp_path)
    given = [expected] if option.multiple else expected
    places[0].write_text(written({key(option): given, **required(command, option, tmp_path)}, words))
    with parsed(*words, arguments=arguments(command, tmp_path)) as context:
        found = plain(value(context, option))
    assert (found == plain(converted(option, given))) is not isinstance(command, Unconfigured)


@pytest.mark.parametrize(("words", "command", "option"), EVERY)
def test_every_option_may_stand_in_a_variable(
    words: tuple[str, ...],
    command: click.Command,
    option: click.Option,
    places: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    expected = example(option, tmp_path)
    if not isinstance(option, SharedOption):
        assert f"TVIX_STORE_{'_'.join((*words, key(option))).upper().replace('-', '_')}" in variables(option)
    for name in variables(option):
        if needed := required(command, option, tmp_path):
            places[0].write_text(written(needed, words))
        with monkeypatch.context() as patch:
            patch.setenv(name, str(expected))
            with parsed(*words, arguments=arguments(command, tmp_path)) as context:
                given = [expected] if option.multiple else expected
                assert plain(value(context, option)) == plain(converted(option, given))


def test_no_variable_means_two_things() -> None:
    meanings = defaultdict(set)
    for _, command in commands_of(program()):
        for name, option in settings(command).items():
            for variable in variables(option):
                meanings[variable].add(name)
    assert {variable: keys for variable, keys in meanings.items() if len(keys) > 1} == {}
    assert "TVIX_STORE_CONFIG" not in meanings


def test_no_key_is_an_option_and_a_table() -> None:
    for _, command in commands_of(program()):
        if isinstance(command, click.Group):
            assert not set(settings(command)) & set(command.list_commands(click.Context(command)))


def test_every_option_has_a_long_name() -> None:
    for words, command in commands_of(program()):
        for option in settings(command).values():
            assert any(name.startswith("--") for name in option.opts), (words, option.opts)


def test_the_page_on_configuration_is_made_from_the_options() -> None:
    from tools.configuration_page import PAGE, page

    assert PAGE.read_text() == page(PAGE.read_text()), "python3 dev.py page"


def test_a_command_without_files_reads_no_toml(tmp_path: Path) -> None:
    import sys

    code = (
        "import sys; from tvix_store.cli.program import run_program; "
        "run_program(['key', 'public', '/dev/null']); print('tomllib' in sys.modules, 'difflib' in sys.modules)"
    )
    environment = {"XDG_CONFIG_HOME": str(tmp_path), "TVIX_STORE_CONFIG": ""}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.split() == ["False", "False"]
