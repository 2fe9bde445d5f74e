"""Bodies that must be JSON, of any content."""

from __future__ import annotations

import asyncio
import json

from tvix_store.errors import InvalidError

_MAX_DIGITS = 1000
"""Of a number; Python makes no int of more than 4300."""


async def check_json(body: bytes | bytearray, errors: str = "strict", *, most_nested: int | None = None) -> None:
    """Raise InvalidError where `body` is no JSON, or has more than `most_nested` arrays and objects in each other.

    `errors` is the handling of bytes that are not UTF-8, as in `bytes.decode`.
    """
    try:
        depth = await asyncio.to_thread(lambda: _depth(_parsed(body.decode("utf-8", errors))))
    except RecursionError:
        raise InvalidError("the body has too many arrays and objects in each other") from None
    except ValueError as error:
        raise InvalidError(f"the body is no JSON: {str(error)[:200]}") from None
    if most_nested is not None and depth > most_nested:
        raise InvalidError(f"the body has arrays and objects {depth} deep in each other; at most {most_nested} are taken")


def _parsed(text: str) -> object:
    return json.loads(text, parse_int=_integer, parse_constant=_refused)


def _integer(digits: str) -> int:
    if len(digits) > _MAX_DIGITS:
        raise ValueError(f"a number of {len(digits)} digits")
    return int(digits)


def _refused(constant: str) -> None:
    raise ValueError(f"{constant} is not a number")


def _depth(value: object) -> int:
    """How many arrays and objects are in each other."""
    depth = 0
    level = [value]
    while level := [each for each in level if isinstance(each, list | dict)]:
        depth += 1
        level = [child for each in level for child in (each.values() if isinstance(each, dict) else each)]
    return depth
