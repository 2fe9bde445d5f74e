"""Spans of time as users write them."""

from __future__ import annotations

import re

from tvix_store.errors import InvalidError

_SPAN = re.compile(r"([1-9][0-9]{0,5})([mhdwy])")
_UNITS = {"m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400, "y": 365 * 86_400}
EXPECTED = f"a span of time (90d; units {', '.join(_UNITS)})"
"""What is read, for messages."""


def read_span(text: str) -> int:
    """Read a span such as `90d`, `12h`, `2w`, `1y` or `30m`, as seconds.

    Raises:
        InvalidError: `text` is no such span.
    """
    matched = _SPAN.fullmatch(text)
    if matched is None:
        raise InvalidError(f"{text[:50]!r} is not {EXPECTED}")
    return int(matched[1]) * _UNITS[matched[2]]
