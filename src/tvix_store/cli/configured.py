"""Giving a command that is about to run what the configuration files say. Every command passes here, so this imports little."""

from __future__ import annotations

import os
from collections.abc import Iterator

import click
from click.core import ParameterSource

from tvix_store.cli.config_paths import files_in_force
from tvix_store.cli.invocation import Invocation
from tvix_store.cli.sections import SectionedCommand
from tvix_store.cli.settings import PREFIX, SharedOption, commands_of, set_variable, settings, variables


class Unconfigured(SectionedCommand):
    """A command that takes no options from files. `config check` is one: it must run when they are wrong."""


def configure_command(context: click.Context, invocation: Invocation) -> None:
    """Make the files' values the defaults of the command in `context`, before its options are read.

    Raises:
        OSError: a file cannot be read.
        ConfigurationError: what it says for this command is wrong.
    """
    words = words_of(context)
    if words:
        _warn_of_variables(context.command, words)
    path = invocation.value("config")
    if isinstance(context.command, Unconfigured) or not files_in_force(path):
        return
    from tvix_store.cli.configuration import Configuration
    from tvix_store.cli.output import warn

    configuration = Configuration.read(path)
    configuration.check(context.find_root().command, words)
    for file in configuration.files:
        if file.exposure is not None:
            warn(file.exposure)
    invocation.configuration = configuration
    context.default_map = configuration.defaults(words, context.command)


def words_of(context: click.Context) -> tuple[str, ...]:
    """The words that call the command of a context, without the program's name."""
    parent = context.parent
    return () if parent is None else (*words_of(parent), context.info_name or "")


def given_elsewhere(context: click.Context) -> Iterator[tuple[str, str]]:
    """The options of a command that come from a variable or a file, and from where: `$VARIABLE` or `path:line`."""
    invocation = context.find_object(Invocation)
    for name, option in settings(context.command).items():
        source = context.get_parameter_source(option.name or "")
        if isinstance(option, SharedOption):
            continue
        if source is ParameterSource.ENVIRONMENT:
            yield f"--{name}", f"${set_variable(option)}"
        elif source is ParameterSource.DEFAULT_MAP and invocation is not None and invocation.configuration is not None:
            found = invocation.configuration.setting(words_of(context), name, option)
            if found is not None:
                yield f"--{name}", found.place


def _warn_of_variables(command: click.Command, words: tuple[str, ...]) -> None:
    """Warn of variables that are almost one of the command's options: a rule that is misspelled must not be missing in silence.

    Others may be for another program. Kubernetes makes TVIX_STORE_DAEMON_PORT for a service of that name.
    """
    begin = PREFIX + "_".join(words).replace("-", "_").upper() + "_"
    given = [name for name in os.environ if name.startswith(begin)]
    if not given:
        return
    known = {name for option in settings(command).values() for name in variables(option)}
    for name in given:
        if name not in known and (near := nearest_variable(name, known, len(begin), 0.8)) is not None:
            from tvix_store.cli.output import warn

            warn(f"no option reads the variable {name}; did you mean {near}?")


def nearest_variable(name: str, known: set[str], begin: int, alike: float) -> str | None:
    """The variable that is most like `name` behind the first `begin` characters, if `alike` is reached (1: the same)."""
    from difflib import get_close_matches

    ends = {each[begin:]: each for each in known}
    return next((ends[near] for near in get_close_matches(name[begin:][:200], ends, 1, alike)), None)


def known_variables(program: click.Command) -> set[str]:
    """The variables of all options of all commands."""
    return {
        name
        for _, command in commands_of(program)
        for option in command.params
        if isinstance(option, click.Option)
        for name in variables(option)
    }
