"""Markup of pages, and of tables in notebooks.

This is the one place where text becomes HTML: all strings are escaped here, but for those that are `Html` already. Rows of long
tables are put together without `element`, by means of `escaped`: that is three times as fast.
"""

from __future__ import annotations

from collections.abc import Iterable
from html import escape as escaped
from urllib.parse import quote_from_bytes

__all__ = ["LINE_BREAK", "NOTHING", "Html", "between", "element", "escaped", "joined", "link", "quoted"]


class Html(str):
    """Markup: what `element` and `joined` make."""

    __slots__ = ()


NOTHING = Html()
LINE_BREAK = Html("<br>")


def element(tag: str, *children: str, **attributes: str) -> Html:
    """An element with these children: texts and other elements. `class_` stands for `class`."""
    fields = "".join(f' {name.rstrip("_")}="{escaped(value)}"' for name, value in attributes.items())
    return Html(f"<{tag}{fields}>{joined(*children)}</{tag}>")


def joined(*children: str) -> Html:
    """Texts and elements behind each other."""
    return between(NOTHING, children)


def between(separator: Html, children: Iterable[str]) -> Html:
    """Texts and elements behind each other, with a separator between them."""
    return Html(separator.join(child if type(child) is Html else escaped(child) for child in children))


def link(href: str, *children: str) -> Html:
    """A link. `href` begins with `.` or `?`, so nothing in it can be taken for a scheme or a host."""
    return element("a", *children, href=href)


def quoted(name: bytes) -> str:
    """A name of a file as a part of a URL."""
    return quote_from_bytes(name, safe="")
