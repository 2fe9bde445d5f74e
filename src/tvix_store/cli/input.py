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
from tvix_store.model.json_fault import json_fault

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


class ByteSize(click.IntRange):
    """A number of bytes, as digits, or as 64K, 64M, 64G, 64T."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        from tvix_store.model.byte_size import read_bytes

        try:
            return super().convert(read_bytes(value) if isinstance(value, str) else value, param, ctx)
        except InvalidError as error:
            self.fail(str(error), param, ctx)


class InputFile(click.File):
    """A file that is opened to be read. Where that fails, the error is the system's, and no mistake in the command line: a file
    that is not there is the same mistake in every command."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter as error:
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise


class SecretInput(InputFile):
    """A file that is opened for its secret, or `credential:NAME`."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return super().convert(credential_file(self, value, param, ctx) or value, param, ctx)


class SecretPath(FilePath):
    """The path of a file that holds a secret, or `credential:NAME`."""

    def convert(self, value: str | os.PathLike[str], param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return super().convert(credential_file(self, value, param, ctx) or value, param, ctx)

    def split_envvar_value(self, rv: str) -> list[str]:
        # Paths are separated by colons, as in PATH. The colon of a credential separates nothing.
        return [path for path in re.split(r"(?<!^credential)(?<!:credential):", rv) if path]


def name_of(file: IO[AnyStr]) -> str:
    """What messages call a file that is open."""
    return "the standard input" if file.name in ("<stdin>", 0) else str(file.name)


def complete_directories(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """What a shell offers for the address of a store: directories, which it knows itself."""
    from click.shell_completion import CompletionItem

    return [CompletionItem(incomplete, type="dir")]


def complete_files(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """What a shell offers for the path of a file."""
    from click.shell_completion import CompletionItem

    return [CompletionItem(incomplete, type="file")]


async def read_input(file: IO[AnyStr]) -> AnyStr:
    """All of `file`. A thread reads it, so that a slow writer does not keep signals from ending the program."""
    import asyncio

    return await asyncio.to_thread(file.read)


async def read_json(file: IO[bytes]) -> Any:
    """The JSON document in `file`.

    Raises:
        InvalidError: it is not JSON.
    """
    text = await read_input(file)
    if not text.strip():
        raise InvalidError(f"{name_of(file)} is empty, and no JSON")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidError(f"{name_of(file)} is {json_fault(error)}") from None
