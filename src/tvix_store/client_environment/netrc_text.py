"""netrc, as text: the entry of one machine in a line of its own. All other lines stay as they are.

Source: curl, lib/netrc.c, which Nix uses. The first entry of a machine counts, and `default` ends the search.
"""

from __future__ import annotations

import re
from itertools import pairwise

from tvix_store.errors import ConflictError

USER = "tvix-store"
"""The login of entries that are ours. A daemon of ours takes any."""
_DEFAULT = re.compile(r"^\s*default\b", re.MULTILINE)


def with_password(text: str, machine: str, password: str) -> str:
    """The text with an entry for a machine, in place of the one that it has.

    Raises:
        ConflictError: it has one that is not alone in a line.
    """
    new = f"machine {machine} login {USER} password {password}\n"
    pattern = _line(machine)
    if pattern.search(text):
        return pattern.sub(lambda _: new, text, count=1)
    if ("machine", machine) in _pairs(text):
        raise ConflictError(f"the netrc file has an entry for {machine} that is not alone in one line; change its password by hand")
    place = found.start() if (found := _DEFAULT.search(text)) else len(text)
    before, after = text[:place], text[place:]
    return f"{before}{'' if not before or before.endswith(chr(10)) else chr(10)}{new}{after}"


def without_password(text: str, machine: str) -> str:
    """The text without our entry for a machine."""
    return re.sub(rf"^machine {re.escape(machine)} login {USER} password \S+(?:\n|\Z)", "", text, flags=re.MULTILINE)


def _line(machine: str) -> re.Pattern[str]:
    own = r"(?:(?!(?<!\S)(?:machine|default|macdef)(?!\S))[^\n])*"
    return re.compile(rf"^[ \t]*machine[ \t]+{re.escape(machine)}[ \t]+{own}\bpassword[ \t]+\S+{own}(?:\n|\Z)", re.MULTILINE)


def _pairs(text: str) -> set[tuple[str, str]]:
    words = text.split()
    return set(pairwise(words))
