"""Sections: the headings below which `--help` shows the options of a command."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from itertools import zip_longest
from textwrap import wrap
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import click

F = TypeVar("F", bound=Callable[..., Any])
STORE, GENERAL = "The store", "General"
_OWN = "Options"
_WIDEST = 32
"""Columns of a name beside which its help stands. Behind a longer one, the help begins on a line of its own."""
_BOUNDS = (
    (re.compile(r"([^\s\[]+)<=x<=([^\s;\]]+)"), r"\1 to \2"),
    (re.compile(r"x>=([^\s;\]]+)"), r"at least \1"),
    (re.compile(r"x>([^\s;\]]+)"), r"more than \1"),
)
"""How click tells the bounds of a number, and how a person would."""
_titles: WeakKeyDictionary[click.Parameter, str] = WeakKeyDictionary()


def in_section(title: str, parameters: Iterable[click.Parameter]) -> None:
    """Show these options below a heading."""
    for parameter in parameters:
        _titles.setdefault(parameter, title)


def section(title: str) -> Callable[[F], F]:
    """A decorator: the options between this one and the next one are shown below a heading."""

    def decorate(function: F) -> F:
        in_section(title, getattr(function, "__click_params__", ()))
        return function

    return decorate


class SectionedCommand(click.Command):
    """A command whose help has a heading for each section of its options."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        general = self.get_help_option(ctx)
        sections: dict[str, list[tuple[str, str]]] = {}
        for option in self.get_params(ctx):
            record = option.get_help_record(ctx) if isinstance(option, click.Option) else None
            if record is not None:
                title = _titles.get(option, GENERAL if option is general else _OWN)
                sections.setdefault(title, []).append((record[0], _plainly(record[1])))
        for title, records in sections.items():
            write_section(formatter, title, records, width_of(records))


def _plainly(text: str) -> str:
    """The explanation of an option as a person would say it: `[at least 1]` for `[x>=1]`."""
    for pattern, words in _BOUNDS:
        text = pattern.sub(words, text)
    return text


def width_of(rows: Iterable[tuple[str, str]]) -> int:
    """Columns for the names in the rows, but for the longest ones."""
    return max((len(name) for name, _ in rows if len(name) <= _WIDEST), default=0)


def write_section(formatter: click.HelpFormatter, title: str, rows: Iterable[tuple[str, str]], width: int) -> None:
    """Write names and their explanations below a heading. Unlike click, break no line inside a word: it may be a path."""
    with formatter.section(title):
        margin = " " * formatter.current_indent
        for name, text in rows:
            lines = wrap(text, max(formatter.width - len(margin) - width - 2, 20), break_on_hyphens=False, break_long_words=False)
            if len(name) > width:
                lines.insert(0, "")
            for first, line in zip_longest((name,), lines, fillvalue=""):
                formatter.write(f"{margin}{first:<{width}}  {line}".rstrip() + "\n")
