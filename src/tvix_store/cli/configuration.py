"""Configuration: the files in force, their values for a command, and their errors.

`--config FILE` names the only file. Without it, two files are merged, key by key: the user's stands above the system's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeGuard

import click

from tvix_store.cli.config_file import ConfigFile, ConfigurationError, read_config_file
from tvix_store.cli.config_paths import files_in_force
from tvix_store.cli.credentials import NoCredentialsError
from tvix_store.cli.input import ByteSize
from tvix_store.cli.masking import masked
from tvix_store.cli.settings import SharedOption, TableType, settings
from tvix_store.config.composition.tables import SERVICES, has_tables
from tvix_store.config.toml_document import Keys, dotted

_ADDRESSES = ("store", "blob-service-addr", "directory-service-addr", "path-info-service-addr", "store-composition")
_MOST_TOLD = 100
"""Problems of a file that are told. A file may have thousands of wrong keys, and each is compared with the known ones."""


@dataclass(frozen=True, slots=True)
class Found:
    """A value in a file."""

    value: Any
    file: ConfigFile
    keys: Keys

    @property
    def place(self) -> str:
        return self.file.place(self.keys)


@dataclass(frozen=True, slots=True)
class Configuration:
    """The files in force. Of several that have a key, the first one counts."""

    files: tuple[ConfigFile, ...] = ()

    @classmethod
    def read(cls, path: str | None) -> Configuration:
        """Read the file at `path`, or those of the user and the system.

        Raises:
            OSError: a file cannot be read.
            ConfigurationError: it is not TOML.
        """
        return cls(tuple(map(read_config_file, files_in_force(path))))

    def find(self, keys: Keys) -> Found | None:
        for file in self.files:
            value: Any = file.table
            for name in keys:
                value = value.get(name) if isinstance(value, Mapping) else None
            if value is not None:
                return Found(value, file, keys)
        return None

    def setting(self, words: Keys, name: str, option: click.Option) -> Found | None:
        """The value of an option of the command `words`. A shared one may also stand in the tables around that of the command."""
        places = range(len(words), -1, -1) if isinstance(option, SharedOption) else [len(words)]
        return next((found for place in places if (found := self.find((*words[:place], name)))), None)

    def composition(self) -> ConfigFile | None:
        """The first file with the tables of a composition. None where there is none, or a file before it has an address."""
        for file in self.files:
            if has_tables(file.table):
                return file
            if any(name in file.table for name in _ADDRESSES):
                return None
        return None

    def defaults(self, words: Keys, command: click.Command) -> dict[str, Any]:
        """Click's default map for a command: values by the names of parameters."""
        found = {option.name: self.setting(words, name, option) for name, option in settings(command).items()}
        return {name: value.value for name, value in found.items() if name and value is not None}

    def check(self, program: click.Command, words: Keys) -> None:
        """Check what the files say for one command: their top level, and the tables on the way to the command.

        Raises:
            ConfigurationError: something is wrong with it.
        """
        found = [problem for file in self.files for problem in problems(file, program, words)]
        if found:
            more = f" ({len(found) - 1} more: tvix-store config check)" if len(found) > 1 else ""
            raise ConfigurationError(f"{found[0]}{more}")


def problems(file: ConfigFile, program: click.Command, words: Keys | None = None) -> Iterator[str]:
    """What is wrong with a file, a line each: with the parts of it that matter to the command `words`, or with all (None).

    No more than 100 are told.
    """
    return islice(_problems(file, program, file.table, program, (), words), _MOST_TOLD)


def _problems(
    file: ConfigFile, program: click.Command, table: Mapping[str, Any], command: click.Command, at: Keys, words: Keys | None
) -> Iterator[str]:
    options = settings(command)
    context = click.Context(command)
    composed = [] if at else [*SERVICES.values()]
    group = command if isinstance(command, click.Group) else None
    commands = group.list_commands(context) if group else []
    for name, value in table.items():
        keys = (*at, name)
        problem = None
        if name in options and _are_tables(options[name], value):
            for number, each in enumerate(value):
                if (problem := unfit(options[name], [each])) is not None:
                    yield f"{file.place(keys, number)}: {dotted(keys)}: {masked(problem)}"
            continue
        if name in options:
            problem = unfit(options[name], value)
        elif name in composed:
            continue  # a part of a composition, which is checked as a whole
        elif group is None or name not in commands:
            problem = _unknown(program, at, name, [*options, *commands, *composed])
        elif not isinstance(value, dict):
            problem = f"expected a table, as in [{dotted(keys)}]; got {_kind(value)}"
        elif words is None or words[: len(keys)] == keys:
            inner = group.get_command(context, name)
            assert inner is not None, "it was listed"
            yield from _problems(file, program, value, inner, keys, words)
        if problem is not None:
            yield f"{file.place(keys)}: {dotted(keys)}: {masked(problem)}"


def _are_tables(option: click.Option, value: object) -> TypeGuard[list[object]]:
    """Whether the value is a list of tables, each of which has a line of its own."""
    return isinstance(option.type, TableType) and option.multiple and isinstance(value, list) and len(value) > 1


def _unknown(program: click.Command, at: Keys, name: str, known: list[str]) -> str:
    from difflib import get_close_matches

    from tvix_store.cli.settings import commands_of

    what = f"unknown key in [{dotted(at)}]" if at else "unknown key"
    if near := get_close_matches(name[:100], known, 1):
        return f"{what}; did you mean {near[0]}?"
    elsewhere = [dotted(words) for words, command in commands_of(program) if words and name in settings(command)]
    if elsewhere:
        return f"{what}; it belongs into [{'] or ['.join(elsewhere[:3])}]"
    return f"{what}; `tvix-store config show {' '.join(at)}`".rstrip("` ") + "` lists the known ones"


def unfit(option: click.Option, value: object) -> str | None:
    """What is wrong with a value of TOML for an option. None if it is right.

    A value that refers to a credential is right wherever there are no credentials: only the service can tell.
    """
    one, several, fits = _expected(option)
    elements = [value]
    for _ in range(bool(option.multiple) + (option.nargs != 1)):
        if not all(isinstance(each, list) for each in elements):
            return f"expected a list of {several}; got {_kind(value)}"
        elements = [element for each in elements if isinstance(each, list) for element in each]
    for each in elements:
        if not fits(each):
            what = f"expected {one}" if each is value else f"expected a list of {several}"
            return f"{what}; got {_kind(each)}"
    if isinstance(option.type, click.File):
        return None  # the command opens it
    try:
        option.type_cast_value(click.Context(click.Command(None)), value)
    except NoCredentialsError:
        return None
    except click.UsageError as error:
        from tvix_store.cli.hints import plainly

        return plainly(error.message)
    return None


def _expected(option: click.Option) -> tuple[str, str, Callable[[object], bool]]:
    """What the values of an option are in TOML: one, several, and a test."""
    kind = option.type
    if isinstance(kind, click.types.BoolParamType):
        return "true or false", "true or false", lambda value: isinstance(value, bool)
    if isinstance(kind, ByteSize):
        return "an integer or a string", "integers or strings", lambda value: type(value) is int or isinstance(value, str)
    if isinstance(kind, click.types.IntParamType):
        return "an integer", "integers", lambda value: type(value) is int
    if isinstance(kind, click.types.FloatParamType):
        return "a number", "numbers", lambda value: type(value) is int or (isinstance(value, float) and math.isfinite(value))
    if isinstance(kind, TableType):
        return "a string or a table", "strings or tables", lambda value: isinstance(value, str | dict)
    return "a string", "strings", lambda value: isinstance(value, str)


def _kind(value: object) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case int():
            return "an integer"
        case float():
            return "a float" if math.isfinite(value) else str(value)
        case str():
            return "a string"
        case list():
            return "a list"
        case dict():
            return "a table"
        case _:
            return "a date or time"
