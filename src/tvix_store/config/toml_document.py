"""TomlDocument: one TOML file, and the line of each key in it."""

from __future__ import annotations

import errno
import os
import re
import stat
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

from tvix_store.errors import InvalidError

Keys: TypeAlias = tuple[str, ...]
"""The way to a value: the names of tables, and a key."""

_LARGEST = 256 << 10
"""Bytes of a file that is read. tomllib reads about a MiB a second."""
_TOKEN = re.compile(
    r"""
    \"{3} (?: \\. | [^\\] )*? \"{3,5}
    | '{3} .*? '{3,5}
    | " (?: \\. | [^"\\\n] )* "
    | ' [^'\n]* '
    | \# [^\n]*
    | [\[\]{}\n]
    """,
    re.DOTALL | re.VERBOSE,
)
"""What decides where a statement of valid TOML ends: strings, comments, brackets, and the ends of lines."""
_MOST_PARTS = 100
"""Parts of one key. The time of tomllib grows with the square of their number: 5,000 take it 2 s."""
_BARE = re.compile(r"[A-Za-z0-9_-]+")
_LONGEST_SHOWN = 60
"""Characters of a key in a message."""
_DEEPEST = 8
"""Parts of a key of which lines are told. Keys of settings have three at most."""


@dataclass(frozen=True)
class TomlDocument:
    """The document in the file at `path`, whose permissions are `mode`."""

    path: str
    text: str
    table: Mapping[str, Any]
    mode: int

    def place(self, keys: Keys, number: int = 0) -> str:
        """`path:line` of a key, or of the first line that names it. Of a key that is not there, it is that of its table.

        Of a list of tables, it is that of the one with a number from 0.
        """
        return f"{self.path}:{self.line(keys, number)}"

    def line(self, keys: Keys, number: int = 0) -> int:
        """The line of a key, as in `place`, from 1."""
        lines, headers = self._lines
        tables = headers.get(keys, [])
        if number < len(tables):
            return tables[number]
        return next((lines[keys[:length]] for length in range(len(keys), 0, -1) if keys[:length] in lines), 1)

    @cached_property
    def _lines(self) -> tuple[dict[Keys, int], dict[Keys, list[int]]]:
        """The line of each key, and the lines of the headers `[[…]]` of each list of tables."""
        lines: dict[Keys, int] = {}
        headers: dict[Keys, list[int]] = {}
        table: Keys = ()
        for line, statement in _statements(self.text):
            document = tomllib.loads(statement)
            if statement.lstrip().startswith("["):
                table = max(_ways(document), key=len)
                if statement.lstrip().startswith("[["):
                    headers.setdefault(table, []).append(line)
                found = [table[:length] for length in range(1, len(table) + 1)]
            else:
                found = [(*table, *way) for way in _ways(document)]
            for keys in found:
                lines.setdefault(keys, line)
        return lines, headers


def read_toml(path: str) -> TomlDocument:
    """Read the TOML file at `path`.

    Raises:
        OSError: it cannot be read.
        InvalidError: it is larger than 256 KiB, or is not TOML.
    """
    try:
        # A pipe without a writer must not stop a daemon that reads its configuration again.
        with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode) and path != os.devnull:
                raise InvalidError(f"{path}: not a regular file")
            data = file.read(_LARGEST + 1)
    except OSError as error:
        number = error.errno or errno.EIO
        raise OSError(number, os.strerror(number), path) from None  # as for any file: of the kind that has the number
    if len(data) > _LARGEST:
        raise InvalidError(f"{path}: larger than {_LARGEST >> 10} KiB, the most that is read")
    text, table = _parsed(path, data)
    return TomlDocument(path, text, table, stat.S_IMODE(status.st_mode))


def _parsed(path: str, data: bytes) -> tuple[str, dict[str, Any]]:
    try:
        # As tomllib wants lines. Positions in messages are those of lines, so they stay right.
        text = data.decode().replace("\r\n", "\n")
        _check_keys(text)
        return text, tomllib.loads(text)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InvalidError(f"{path}:{line}: not TOML: the file is not UTF-8") from None
    except RecursionError:
        raise InvalidError(f"{path}: not TOML: nested too deeply") from None
    except ValueError as error:
        what, _, where = str(error).partition(" (at ")
        found = re.match(r"line (\d+)", where)
        line = int(found[1]) if found else text.count("\n") + 1
        raise InvalidError(f"{path}:{line}: not TOML: {what}" if where else f"{path}: not TOML: {what}") from None


def _check_keys(text: str) -> None:
    """Raise RecursionError if a key has too many parts. Of text that is not TOML, this holds up to the fault."""
    bare = _TOKEN.sub(lambda token: "\n" if token[0] == "\n" else "", text)
    if any(part.count(".") > _MOST_PARTS for part in re.split("[\n,=]", bare)):
        raise RecursionError


def _statements(text: str) -> Iterator[tuple[int, str]]:
    """The statements of a valid document, each with its line. One may go over several lines, in a list or a string."""
    begin, line, first, depth = 0, 1, 1, 0
    for token in _TOKEN.finditer(text + "\n"):
        mark = token[0]
        if mark == "\n" and depth == 0:
            if statement := text[begin : token.start()].strip():
                yield first, statement
            begin, first = token.end(), line + 1
        depth += (mark in ("[", "{")) - (mark in ("]", "}"))
        line += mark.count("\n")


def _ways(value: object, way: Keys = ()) -> Iterator[Keys]:
    """The keys in a value, and in the tables within."""
    if len(way) == _DEEPEST:
        return
    if isinstance(value, list):
        for each in value:
            yield from _ways(each, way)
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield (*way, name)
            yield from _ways(inner, (*way, name))


def dotted(keys: Keys) -> str:
    """Keys as TOML writes them, for messages: `path-info.sign`."""
    return ".".join(name if _BARE.fullmatch(name) else ascii(name) for name in (name[:_LONGEST_SHOWN] for name in keys))
