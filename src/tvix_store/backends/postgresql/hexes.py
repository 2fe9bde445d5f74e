"""Many values of bytes in one statement: as an array of texts in hex, which the server turns into bytes.

For an array of bytes, the driver would first ask the server about that type, on each new connection. That takes 25 ms, and the
question is not made for other databases than PostgreSQL.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_GIVEN = re.compile(r"GIVEN\((\$\d)\)")
_ROWS = re.compile(r"ROWS\(([a-z_, ]+)\)")


def hexes(values: Iterable[bytes]) -> list[str]:
    """The argument of a statement for these values."""
    return [value.hex() for value in values]


def statement(text: str) -> str:
    """The SQL for a text with subqueries in it.

    `GIVEN($3)` has a row for each value of an argument. `ROWS(key, value)` has the first arguments as columns with these names.
    """
    return _ROWS.sub(lambda found: _rows(found[1].split(", ")), _GIVEN.sub(_given, text))


def _given(found: re.Match[str]) -> str:
    return f"(SELECT decode(given, 'hex') FROM unnest({found[1]}::text[]) AS all_given (given))"  # noqa: S608 - a number


def _rows(names: list[str]) -> str:
    arrays = ", ".join(f"${number}::text[]" for number in range(1, len(names) + 1))
    decoded = ", ".join(f"decode({name}, 'hex') AS {name}" for name in names)
    return f"(SELECT {decoded} FROM unnest({arrays}) AS all_given ({', '.join(names)}))"  # noqa: S608 - names of ours
