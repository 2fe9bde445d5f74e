"""`tvix-store help`."""

from __future__ import annotations

import click

from tvix_store.cli.completing import commands
from tvix_store.cli.sections import SectionedCommand


@click.command(cls=SectionedCommand)
@click.argument("words", metavar="[COMMAND...]", nargs=-1, shell_complete=commands)
@click.pass_context
def help_(context: click.Context, words: tuple[str, ...]) -> None:
    """Explain COMMAND as its --help does. By default, explain the program.

    \b
        tvix-store help import
        tvix-store help pin add
    """
    at = context.find_root()
    for word in words:
        group = at.command
        if not isinstance(group, click.Group):
            raise click.UsageError(f"{at.command_path} has no commands below it", context)
        _, command, _ = group.resolve_command(at, [word])
        assert command is not None, "resolve_command raises where it is not"
        at = click.Context(command, info_name=word, parent=at)
    click.echo(at.get_help())
