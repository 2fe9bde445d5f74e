"""Write the table of all options into docs/configuration.md.

    python tools/configuration_page.py       after an option was added or changed

Everything in the table comes from the options of the commands.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from tvix_store.cli.config_show import toml
from tvix_store.cli.input import ByteSize
from tvix_store.cli.program import program
from tvix_store.cli.settings import SharedOption, TableType, commands_of, settings, variables

PAGE = Path(__file__).resolve().parent.parent / "docs/configuration.md"
BEGIN, END = "<!-- made by tools/configuration_page.py -->\n", "<!-- end -->\n"


def page(text: str) -> str:
    """The page, with the table in place of the one in `text`."""
    before, _, rest = text.partition(BEGIN)
    made = "\n".join(_tables())
    return f"{before}{BEGIN}\n{made}{END}{rest.partition(END)[2]}"


def _tables() -> Iterator[str]:
    for words, command in commands_of(program()):
        options = {name: each for name, each in settings(command).items() if not words or not isinstance(each, SharedOption)}
        if not options:
            continue
        yield f"### `{' '.join(('tvix-store', *words))}`\n"
        yield f"Keys below `[{'.'.join(words)}]`.\n" if words else "Keys at the top, or in the table of a command.\n"
        yield "| key | variable | type | default | |\n|---|---|---|---|---|"
        for name, option in options.items():
            yield _row(name, option)
        yield ""


def _row(name: str, option: click.Option) -> str:
    help_, _, default = (option.help or "").partition(" Default: ")
    known = option.to_info_dict()["default"]
    if not default and known is not None:
        default = f"`{toml(known)}`"
    names = "<br>".join(f"`{variable}`" for variable in variables(option))
    return f"| `{name}` | {names} | {_kind(option)} | {_plain(default)} | {_plain(help_)} |"


def _plain(text: str) -> str:
    """Text that Markdown shows as it is, in a cell of a table."""
    return text.replace("|", "\\|").replace("<", "&lt;").replace(">", "&gt;").replace("*", "\\*").replace("[", "\\[")


def _kind(option: click.Option) -> str:
    kind = option.type
    if isinstance(kind, click.Choice):
        one = " or ".join(f"`{toml(choice)}`" for choice in kind.choices)
    elif isinstance(kind, click.types.BoolParamType):
        one = "true or false"
    elif isinstance(kind, ByteSize):
        one = "integer or string"
    elif isinstance(kind, click.types.IntParamType):
        one = "integer"
    elif isinstance(kind, click.types.FloatParamType):
        one = "number"
    elif isinstance(kind, TableType):
        one = "string or table"
    else:
        one = "string"
    metavar = "" if option.is_flag or isinstance(kind, click.Choice) or option.metavar is None else f" ({option.metavar})"
    several = one.replace(" or ", "s or ") + "s"
    return f"list of {several}{metavar}" if option.multiple else f"{one}{metavar}"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text()))
