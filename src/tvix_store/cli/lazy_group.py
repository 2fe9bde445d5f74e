"""LazyGroup: a group of commands whose modules are read only when one of them runs.

`tvix-store --help` needs the names and a line on each; reading all modules would take it four times as long.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple

import click

from tvix_store.cli.invocation import shared_options
from tvix_store.cli.sections import SectionedCommand, width_of, write_section
from tvix_store.cli.settings import name_variables

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem


class Entry(NamedTuple):
    """Where a command is (`module:attribute`), and a line about it."""

    target: str
    summary: str


class LazyGroup(SectionedCommand, click.Group):
    """A group over tables of entries by command name, in the order in which they are shown: one table a heading.

    `opens_store` tells whether any of its commands works on a store.
    """

    def __init__(
        self,
        name: str,
        sections: Mapping[str, Mapping[str, Entry]],
        help: str,  # noqa: A002 - click's word
        *,
        opens_store: bool = True,
    ) -> None:
        names = {"help_option_names": ["-h", "--help"]}
        super().__init__(name, help=help, params=shared_options(opens_store=opens_store), context_settings=names)
        self._sections = sections
        self._table = {name: entry for section in sections.values() for name, entry in section.items()}
        self._words: tuple[str, ...] = ()
        """Those that call the group, behind the program's name."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self._table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        entry = self._table.get(cmd_name)
        if entry is None:
            return None
        module, _, attribute = entry.target.partition(":")
        command: click.Command = getattr(import_module(module), attribute)
        words = (*self._words, cmd_name)
        if isinstance(command, LazyGroup):
            command._words = words  # noqa: SLF001 - its own class
        name_variables(command, words)
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in self._table and not args[0].startswith("-") and not ctx.resilient_parsing:
            raise click.exceptions.NoSuchCommand(args[0], possibilities=self._table, ctx=ctx)
        return super().resolve_command(ctx, args)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        width = width_of((name, "") for name in self._table)
        for title, table in self._sections.items():
            write_section(formatter, title, [(name, entry.summary) for name, entry in table.items()], width)
        super().format_options(ctx, formatter)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Nothing: they are written before the options."""

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem[str]]:
        from click.shell_completion import CompletionItem

        names = [CompletionItem(name, help=entry.summary) for name, entry in self._table.items() if name.startswith(incomplete)]
        return names + click.Command.shell_complete(self, ctx, incomplete)
