"""Output of commands: names, JSON, and bytes as they are."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterable, AsyncIterator
from typing import TYPE_CHECKING

from tvix_store.model.names import as_text

if TYPE_CHECKING:
    from tvix_store.model.path_info import PathInfo


def shown(name: bytes) -> str:
    """`name` for printing. On a terminal, characters that would steer it are escaped."""
    if not sys.stdout.isatty():
        return os.fsdecode(name)
    return printable(as_text(name))


def printable(text: str) -> str:
    """`text` with escapes in place of the characters that would steer a terminal."""
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)


def warn(text: str) -> None:
    """Print a line about something that is not as it should be, but no error."""
    print(f"tvix-store: warning: {text}", file=sys.stderr, flush=True)


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


async def print_path_infos(path_infos: AsyncIterator[PathInfo], store_dir: str, *, as_json: bool) -> None:
    """Print the store paths of path infos as these come, or the path infos themselves as a JSON array."""
    from tvix_store.cli.json_forms import path_info_to_json

    if as_json:
        await print_json_array(path_info_to_json(each, store_dir) async for each in path_infos)
        return
    async for each in path_infos:
        print(each.store_path.absolute(store_dir), flush=True)


async def print_bytes(pieces: AsyncIterable[bytes]) -> None:
    """Print `pieces` as they are. A thread writes them, so that a slow reader does not keep signals from ending the program."""
    sys.stdout.flush()
    async for piece in pieces:
        await asyncio.to_thread(_write, piece)


def _write(piece: bytes) -> None:
    sys.stdout.buffer.write(piece)
    sys.stdout.buffer.flush()
