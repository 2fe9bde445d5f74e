"""`tvix-store config check`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import click

from tvix_store.cli.configured import Unconfigured, known_variables, nearest_variable
from tvix_store.cli.input import FilePath
from tvix_store.cli.invocation import Invocation, shared_options
from tvix_store.cli.settings import PREFIX


@click.command(cls=Unconfigured)
@click.argument("files", metavar="[FILE...]", nargs=-1, type=FilePath())
@click.pass_context
def check(context: click.Context, files: tuple[Path, ...]) -> None:
    """Check all that FILE says, for every command. By default, check the files that are in force.

    A line tells each fault, with file, line and key. Variables are checked too. A file that cannot be read ends the check. Nothing
    is run, opened or changed, so a path in FILE that does not exist is not found here.

    \b
        tvix-store config check
        tvix-store config check ./config.toml
    """
    from tvix_store.cli.config_file import ConfigurationError
    from tvix_store.cli.config_paths import SYSTEM, files_in_force, user_file

    named = context.ensure_object(Invocation).value("config")
    paths = list(map(str, files)) or files_in_force(named)
    program = context.find_root().command
    faults = 0
    for path in paths:
        found = list(_faults(path, program))
        faults += len(found)
        print(*(found or [f"{path}: good"]), sep="\n")
    if not paths:
        print(f"no configuration file: neither {user_file()} nor {SYSTEM} is there")
    for fault in _faults_of_variables(program):
        faults += 1
        print(fault)
    for name in _unknown_variables(program):
        print(name)
    if faults:
        raise ConfigurationError(f"{faults} faults in the configuration" if faults > 1 else "a fault in the configuration")


check.params += shared_options(opens_store=False)


def _faults(path: str, program: click.Command) -> Iterator[str]:
    from tvix_store.cli.config_file import ConfigurationError, read_config_file
    from tvix_store.cli.configuration import problems
    from tvix_store.cli.output import warn

    try:
        file = read_config_file(path)
    except ConfigurationError as error:
        yield error.message
        return
    if file.exposure is not None:
        warn(file.exposure)
    yield from problems(file, program)


def _faults_of_variables(program: click.Command) -> Iterator[str]:
    """What commands would refuse in the variables of their options."""
    from tvix_store.cli.credentials import NoCredentialsError
    from tvix_store.cli.hints import plainly
    from tvix_store.cli.masking import masked
    from tvix_store.cli.settings import SharedOption, commands_of, set_variable, settings

    for words, command in commands_of(program):
        context = click.Context(command)
        for option in settings(command).values():
            value = option.value_from_envvar(context)
            if value is None or isinstance(option.type, click.File) or (words and isinstance(option, SharedOption)):
                continue
            try:
                option.type_cast_value(context, value)
            except NoCredentialsError:
                continue
            except click.UsageError as error:
                yield f"${set_variable(option)}: {masked(plainly(error.message))}"


def _unknown_variables(program: click.Command) -> Iterator[str]:
    """Variables that no option reads. They are no faults: Kubernetes makes TVIX_STORE_PORT for a service called tvix-store."""
    known = known_variables(program)
    for name in sorted(os.environ):
        if name.startswith(PREFIX) and name not in known:
            near = nearest_variable(name, known, len(PREFIX), 0.9)
            yield f"${name}: no option reads it" + (f"; did you mean {near}?" if near else "")
