"""`tvix-store config check`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path

import click
from click.core import ParameterSource

from tvix_store.cli.configured import Unconfigured, known_variables, nearest_variable
from tvix_store.cli.input import FilePath
from tvix_store.cli.invocation import Invocation, shared_options
from tvix_store.cli.settings import PREFIX


@click.command(cls=Unconfigured)
@click.argument("files", metavar="[FILE...]", nargs=-1, type=FilePath())
@click.option("--open", "opens", is_flag=True, help="Open each part of the store in force, too, and say which ones serve.")
@click.pass_context
def check(context: click.Context, files: tuple[Path, ...], opens: bool) -> None:
    """Check all that FILE says, for every command. By default, check the files that are in force, also that of a composition.

    A line tells each fault, with file, line and key. Variables are checked too. A file that cannot be read ends the check. Nothing
    is run, opened or changed, unless --open says so. In a composition, the files of keys must be there.

    \b
        tvix-store config check
        tvix-store config check ./config.toml ./stores.toml
        tvix-store config check --open --store-composition ./stores.toml
    """
    from tvix_store.cli.config_file import ConfigurationError
    from tvix_store.cli.config_paths import SYSTEM, files_in_force, user_file

    invocation = context.ensure_object(Invocation)
    composition = invocation.value("composition")
    in_force = files_in_force(invocation.value("config"))
    paths = list(map(str, files)) or [*in_force, *([composition] if composition else [])]
    program = context.find_root().command
    faults = 0
    for path in paths:
        remarks: list[str] = []
        found = list(_faults(path, program, remarks))
        faults += len(found)
        print(*found, *remarks, *([] if found else [f"{path}: good"]), sep="\n")
    if not paths:
        print(f"no configuration file: neither {user_file()} nor {SYSTEM} is there")
    for fault in _faults_of_variables(program):
        faults += 1
        print(fault)
    for name in _unknown_variables(program):
        print(name)
    if faults:
        raise ConfigurationError(f"{faults} faults in the configuration" if faults > 1 else "a fault in the configuration")
    if opens:
        _open_each(invocation, program)


check.params += shared_options(opens_store=False)


def _faults(path: str, program: click.Command, remarks: list[str]) -> Iterator[str]:
    """What is wrong with a file. What is worth a line, and no fault, goes to the `remarks`."""
    from tvix_store.cli.compositions import faults_of, remarks_on
    from tvix_store.cli.config_file import ConfigurationError, read_config_file
    from tvix_store.cli.configuration import problems
    from tvix_store.cli.output import warn
    from tvix_store.config.composition.tables import has_tables

    try:
        file = read_config_file(path)
    except ConfigurationError as error:
        yield error.message
        return
    if file.exposure is not None:
        warn(file.exposure)
    yield from problems(file, program)
    if has_tables(file.table):
        yield from faults_of(file)
        remarks += remarks_on(file)


def _open_each(invocation: Invocation, program: click.Command) -> None:
    """Open the parts of the store in force, and print a line for each. The first error of one ends the program at the end."""
    from tvix_store.cli.configuration import Configuration
    from tvix_store.cli.event_loop import run
    from tvix_store.cli.masking import masked
    from tvix_store.config.compose import open_each

    invocation.configuration = Configuration.read(invocation.value("config"))
    invocation.given[ParameterSource.DEFAULT_MAP] |= invocation.configuration.defaults((), program)
    composition = invocation.composition()

    async def opened() -> None:
        failed = None
        async with aclosing(open_each(composition, invocation.value("store_dir"))) as tried:
            async for node, error in tried:
                print(f"{masked(node.name)}: {'it serves' if error is None else masked(str(error))}")
                failed = failed or error
        if failed is not None:
            raise failed

    run(opened())


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
