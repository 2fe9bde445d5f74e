"""nix.conf, as text: what it says, and blocks of lines that belong to one cache. All other lines stay as they are.

Source: nix, src/libutil/config.cc, applyConfig. A line is `name = values`, and `#` begins a comment. A later line of a name counts,
and `extra-name` adds to what came before. So a block goes to the end.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_INCLUDE = re.compile(r"^\s*!?include\s+nix\.custom\.conf\s*$", re.MULTILINE)


def values(text: str, name: str) -> list[str]:
    """The words of a setting, as the text leaves it. Other files that it includes are not read."""
    found: list[str] = []
    for line in text.splitlines():
        key, equals, value = line.partition("#")[0].partition("=")
        if equals and key.strip() == name:
            found = value.split()
        elif equals and key.strip() == f"extra-{name}":
            found += value.split()
    return found


def block(text: str, url: str) -> list[str] | None:
    """The lines that belong to a cache; None for none."""
    matched = _pattern(url).search(text)
    return matched["lines"].splitlines() if matched else None


def with_block(text: str, url: str, lines: Sequence[str]) -> str:
    """The text with these lines for a cache, in place of those that it has for it."""
    begin, end = _marks(url)
    new = "\n".join((begin, *lines, end, ""))
    if _pattern(url).search(text):
        return _pattern(url).sub(lambda _: new, text, count=1)
    gap = "" if not text or text.endswith("\n\n") else "\n" if text.endswith("\n") else "\n\n"
    return f"{text}{gap}{new}"


def without_block(text: str, url: str) -> str:
    """The text without the lines that belong to a cache."""
    left = re.compile(rf"\n?{_pattern(url).pattern}", re.DOTALL | re.MULTILINE).sub("", text)
    return "" if not left.strip() else left


def includes_custom_file(text: str) -> bool:
    """Whether the text is that of an installer which keeps nix.conf for itself, and leaves `nix.custom.conf` to the users."""
    return _INCLUDE.search(text) is not None


def _marks(url: str) -> tuple[str, str]:
    return f"# tvix-store use {url}: begin", f"# tvix-store use {url}: end"


def _pattern(url: str) -> re.Pattern[str]:
    begin, end = map(re.escape, _marks(url))
    return re.compile(rf"^{begin}\n(?P<lines>.*?)^{end}(?:\n|\Z)", re.DOTALL | re.MULTILINE)
