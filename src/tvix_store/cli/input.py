"""Input of commands beside the store: files, and the standard input."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, AnyStr

import click

from tvix_store.cli.credentials import credential_file
from tvix_store.errors import InvalidError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem


class FilePath(click.Path):
    """The path of a file or directory. An empty one is refused: Python takes it for the current directory, and it comes from a
    variable that is not set."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: str | os.PathLike[str], param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "":
            self.fail("the path is empty; write . for the current directory", param, ctx)
        return super().convert(value, param, ctx)


class SecretPath(FilePath):
    """The path of a file that holds a secret, or `credential:NAME`."""

    def convert(self, value: str | os.PathLike[str], param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return super().convert(credential_file(self, value, param, ctx) or value, param, ctx)

    def split_envvar_value(self, rv: str) -> list[str]:
        # Paths are separated by colons, as in PATH. The colon of a credential separates nothing.
        return [path for path in re.split(r"(?<!^credential)(?<!:credential):", rv) if path]


def complete_directories(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """What a shell offers for the address of a store: directories, which it knows itself."""
    from click.shell_completion import CompletionItem

    return [CompletionItem(incomplete, type="dir")]


async def read_input(file: IO[AnyStr]) -> AnyStr:
    """All of `file`. A thread reads it, so that a slow writer does not keep signals from ending the program."""
    import asyncio

    return await asyncio.to_thread(file.read)


async def read_json(file: IO[bytes]) -> Any:
    """The JSON document in `file`.

    Raises:
        InvalidError: it is not JSON.
    """
    try:
        return json.loads(await read_input(file))
    except (ValueError, RecursionError) as error:
        raise InvalidError(f"{file.name}: not JSON: {error}") from None
