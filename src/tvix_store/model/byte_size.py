"""Numbers of bytes as users write them."""

from __future__ import annotations

import re

from tvix_store.errors import InvalidError

_SIZE = re.compile(r"([0-9]{1,15})([KMGT]?)")
_UNITS = {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}


def read_bytes(text: str) -> int:
    """Read `1000000`, or `64K`, `64M`, `64G`, `64T` in powers of 1024.

    Raises:
        InvalidError: `text` is no such number.
    """
    matched = _SIZE.fullmatch(text)
    if matched is None:
        raise InvalidError(f"not a number of bytes: {text!r} (expected digits, and perhaps K, M, G or T, as in 50G)")
    return int(matched[1]) << _UNITS[matched[2]]
