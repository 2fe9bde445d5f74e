"""What commands print: names, JSON, and bytes as they are."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterable, AsyncIterator


def shown(name: bytes) -> str:
    """`name` for printing: as it is, but on a terminal without what would steer it."""
    if not sys.stdout.isatty():
        return os.fsdecode(name)
    text = name.decode("utf-8", "backslashreplace")
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)


def print_json(value: object) -> None:
    """Print a JSON document. Bytes that are not UTF-8 stand in strings as `\\udc80` to `\\udcff`, as Python reads file names."""
    print(json.dumps(value, indent=2))


async def print_json_array(values: AsyncIterator[object]) -> None:
    """Print a JSON array, an element a line, as the elements come; a whole one of those that came before an error."""
    opening = "[\n"
    try:
        async for value in values:
            print(opening + json.dumps(value), end="")
            opening = ",\n"
    finally:
        print("[]" if opening == "[\n" else "\n]")


async def print_bytes(pieces: AsyncIterable[bytes]) -> None:
    """Print `pieces` as they are. A thread writes them, so that a reader who does not read keeps nobody from stopping us."""
    sys.stdout.flush()
    async for piece in pieces:
        await asyncio.to_thread(_write, piece)


def _write(piece: bytes) -> None:
    sys.stdout.buffer.write(piece)
    sys.stdout.buffer.flush()
