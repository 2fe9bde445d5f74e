"""`tvix-store config show`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from tvix_store.cli.completing import commands
from tvix_store.cli.effective import Effective
from tvix_store.cli.invocation import Invocation, json_option, shared_options
from tvix_store.cli.sections import SectionedCommand
from tvix_store.config.toml_document import dotted

if TYPE_CHECKING:
    from tvix_store.cli.compositions import Tables


@click.command(cls=SectionedCommand)
@click.argument("words", metavar="[COMMAND...]", nargs=-1, shell_complete=commands)
@click.option("--composition", "only_composition", is_flag=True, help="Show only the store, as a composition, whatever names it.")
@json_option
@click.pass_context
def show(context: click.Context, words: tuple[str, ...], only_composition: bool, as_json: bool) -> None:
    """Show the value of each option of COMMAND, and where it comes from. By default, show the options of all commands.

    The output is a configuration file: options that are not set stand in comments. Passwords are masked. If a composition is in
    force, its tables stand at the end.

    \b
        tvix-store config show daemon
        tvix-store config show path-info sign
        tvix-store config show --composition --store ./store
        tvix-store config show --json | jq '.options[] | select(.source != "default")'
    """
    from tvix_store.cli.compositions import shown_tables
    from tvix_store.cli.configuration import Configuration
    from tvix_store.cli.effective import effective_values
    from tvix_store.cli.output import print_json
    from tvix_store.cli.settings import commands_of

    invocation = context.ensure_object(Invocation)
    if only_composition:
        stores = shown_tables(invocation.composition())
        if as_json:
            print_json(stores)
        else:
            _print_stores(stores)
        return
    configuration = invocation.configuration or Configuration()
    commands = list(commands_of(context.find_root().command))
    chosen = [(at, command) for at, command in commands if at == () or at[: len(words)] == words]
    if words not in (at for at, _ in commands):
        raise click.UsageError(f"no such command: {' '.join(words)}", context)
    typed = invocation.given[ParameterSource.COMMANDLINE]
    for file in configuration.files:
        if not as_json:
            print(f"# {_plain(file.path)}")
    tables = {at: list(effective_values(command, at, configuration, typed)) for at, command in chosen}
    if as_json:
        options = [_to_json(each) for values in tables.values() for each in values]
        listed: dict[str, object] = {"files": [file.path for file in configuration.files], "options": options}
        if invocation.is_composed():
            listed["composition"] = shown_tables(invocation.composition())
        print_json(listed)
        return
    for at, values in tables.items():
        _print_table(at, values)
    if invocation.is_composed():
        print("\n# the store")
        _print_stores(shown_tables(invocation.composition()))


show.params += shared_options(opens_store=False)


def _print_table(words: tuple[str, ...], values: Iterable[Effective]) -> None:
    lines = [_line(each) for each in values]
    if lines and words:
        print(f"\n[{'.'.join(words)}]")
    for line in lines:
        print(line)


def _print_stores(stores: Tables) -> None:
    """Print a composition, as the file that may be read again."""
    for number, (table, instances) in enumerate(stores.items()):
        for name, instance in instances.items():
            if isinstance(instance, str):
                print(*([""] if number else []), f"[{table}]", f"{dotted((name,))} = {toml(instance)}", sep="\n")
                continue
            print(f"\n[{table}.{dotted((name,))}]")
            for key, value in instance.items():
                print(f"{dotted((key,))} = {toml(value)}")


def _line(each: Effective) -> str:
    value = each.shown
    if each.source is ParameterSource.DEFAULT:
        return f"# {each.key}" if value is None else f"# {each.key} = {toml(value)}"
    return f"{each.key} = {toml(value)}  # {_plain(each.place or 'the command line')}"


def _to_json(each: Effective) -> dict[str, object]:
    source = {ParameterSource.DEFAULT: "default", ParameterSource.DEFAULT_MAP: "file"}.get(each.source, each.source.name.lower())
    return {
        "command": " ".join(each.words),
        "option": each.key,
        "value": each.shown,
        "source": source,
        "place": each.place,
        "variable": each.variable,
    }


def toml(value: object) -> str:
    """A value as TOML writes it. Characters that steer a terminal are escaped."""
    match value:
        case bool():
            return "true" if value else "false"
        case int() | float():
            return str(value)
        case list() | tuple():
            return f"[{', '.join(map(toml, value))}]"
        case dict():
            return f"{{{', '.join(f'{toml(str(name))} = {toml(each)}' for name, each in value.items())}}}"
    return f'"{_plain(str(value))}"'


def _plain(text: str) -> str:
    return "".join(map(_escaped, text))


def _escaped(character: str) -> str:
    if character in '"\\':
        return f"\\{character}"
    if character.isprintable():
        return character
    code = ord(character)
    return "\N{REPLACEMENT CHARACTER}" if 0xD800 <= code < 0xE000 else f"\\U{code:08x}"
