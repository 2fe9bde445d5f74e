"""Settings: the options of a command that may also stand in a variable or in a configuration file, and their names there.

All of this follows from the options themselves. `--listen-address` of `daemon` is `TVIX_STORE_DAEMON_LISTEN_ADDRESS` in the
environment, and `listen-address` in the table `[daemon]` of a file.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, TypeVar

import click

T = TypeVar("T")
PREFIX = "TVIX_STORE_"
"""What the variables of commands begin with."""


class SharedOption(click.Option):
    """An option of the program and of every command. It has one variable, and a key in the table of each command."""


class TableType(click.ParamType[T], ABC):
    """The type of an option whose value may also be a table in a file. On the command line, and in variables, it is a text.

    example: A text that the type takes.
    """

    example: ClassVar[str]
    envvar_list_splitter: ClassVar[str] = ";"  # the text may have spaces in it

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> T:
        """What is made of a text or a table. Click may hand over a value that is made already."""
        from tvix_store.errors import InvalidError

        if not isinstance(value, str | Mapping):
            made: T = value
            return made
        try:
            return self.made(value, param, ctx)
        except InvalidError as error:
            self.fail(str(error), param, ctx)

    @abstractmethod
    def made(self, value: str | Mapping[str, Any], param: click.Parameter | None, ctx: click.Context | None) -> T:
        """The value that a text, or a table, stands for.

        Raises:
            InvalidError: it is wrong.
        """


def key(option: click.Option) -> str:
    """The name of an option in a configuration file: its long name, without dashes in front."""
    return next((name for name in option.opts if name.startswith("--")), option.opts[0]).lstrip("-")


def settings(command: click.Command) -> dict[str, click.Option]:
    """The settings of a command by their keys. Eager options, such as --version, act at once and are no settings."""
    return {key(option): option for option in command.params if isinstance(option, click.Option) and not option.is_eager}


def variables(option: click.Option) -> tuple[str, ...]:
    """The variables of an option. The first one that is set, and not empty, counts."""
    names = option.envvar or ()
    return (names,) if isinstance(names, str) else tuple(names)


def set_variable(option: click.Option) -> str | None:
    """The variable that counts, if one is set."""
    return next((name for name in variables(option) if os.environ.get(name)), None)


def name_variables(command: click.Command, words: Sequence[str]) -> None:
    """Give the options of the command that is called by `words` their variables, before those that an option has of its own."""
    for name, option in settings(command).items():
        made = PREFIX + "_".join((*words, name)).replace("-", "_").upper()
        if not isinstance(option, SharedOption) and made not in variables(option):
            option.envvar = [made, *variables(option)]


def commands_of(program: click.Command, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """The program and every command in it, each with the words that call it. All of their modules are imported."""
    yield words, program
    if isinstance(program, click.Group):
        context = click.Context(program)
        for name in program.list_commands(context):
            command = program.get_command(context, name)
            assert command is not None, "it was listed"
            yield from commands_of(command, (*words, name))
