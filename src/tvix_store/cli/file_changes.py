"""Changes of files that are shown to a person first."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import click

from tvix_store.cli.output import print_json
from tvix_store.durable_file import replace_file
from tvix_store.errors import ConflictError, UnavailableError, of_disk


@dataclass(frozen=True, slots=True)
class FileChange:
    """The new text of a file.

    before: The text that it had when the new one was made.
    lines: What is new, as it may be shown.
    managed: Another program writes the file, so this one only shows.
    removed: What goes, as it may be shown.
    secret: Nobody else may read the file.
    """

    path: Path
    before: str
    text: str
    lines: Sequence[str]
    managed: bool = False
    removed: Sequence[str] = ()
    secret: bool = False

    @property
    def changes(self) -> bool:
        return self.before != self.text

    def write(self) -> None:
        """Write it, if that changes anything.

        Raises:
            ConflictError: it is not as it was any more.
            DeniedError, ExhaustedError, UnavailableError: the system refuses.
        """
        try:
            if self.secret and self.path.exists():
                os.chmod(self.path, 0o600)  # first: the new file takes after it
            if not self.changes:
                return
            if read_file(self.path) != self.before:
                raise ConflictError(f"{self.path} has changed meanwhile, so it is left as it is; say the command again")
            self.path.parent.mkdir(parents=True, exist_ok=True)
            replace_file(self.path.resolve(), self.text.encode(errors="surrogateescape"), 0o600 if self.secret else 0o644)
        except OSError as error:
            raise of_disk(error, f"cannot write {self.path}: {error.strerror}", UnavailableError) from None


def read_file(path: Path) -> str:
    """The text of a file, as it is to the byte; empty where there is none."""
    try:
        return path.read_bytes().decode(errors="surrogateescape")
    except FileNotFoundError:
        return ""


@dataclass(frozen=True, slots=True)
class Change:
    """What is to be changed for a cache, and what a person should know of it."""

    url: str
    public_keys: tuple[str, ...]
    files: Sequence[FileChange]
    notes: list[str] = field(default_factory=list)

    async def carry_out(self, *, ask: bool, write: bool, as_json: bool) -> None:
        """Show the change, ask whether it is right, and write it.

        Raises:
            click.UsageError: nobody can be asked.
            StoreError: as `FileChange.write`.
        """
        wanted = [file for file in self.files if not file.managed and file.changes]
        if not as_json:
            self._show()
            sys.stdout.flush()  # before the notes, also in a log
            for note in self.notes:
                print(f"Note: {note}.", file=sys.stderr)
            if not wanted:
                print("There is nothing to write.", file=sys.stderr)
            elif write and ask and not await _agreed():
                print("Nothing was written.", file=sys.stderr)
                return
        if write:
            for file in wanted:
                file.write()
        if as_json:
            print_json(self._to_json(written=write and bool(wanted)))
        elif write:
            for file in wanted:
                print(f"Written: {file.path}", file=sys.stderr)

    def _show(self) -> None:
        for file in self.files:
            if file.managed:
                print(f"{file.path} is written by NixOS or home-manager. The same in its options:")
                print("\n".join(_options(file.lines)))
                continue
            for words, lines in (("loses", file.removed), ("has" if not file.changes else "gets", file.lines)):
                if lines:
                    print(f"{file.path} {words}:")
                    print("\n".join(f"    {line}" for line in lines))

    def _to_json(self, *, written: bool) -> dict[str, object]:
        return {
            "url": self.url,
            "publicKeys": list(self.public_keys),
            "files": [
                {"path": str(file.path), "lines": list(file.lines), "removed": list(file.removed), "managed": file.managed}
                for file in self.files
            ],
            "notes": self.notes,
            "written": written,
        }


def _options(lines: Sequence[str]) -> list[str]:
    """Lines of nix.conf as options of NixOS."""
    pairs = [line.split(" = ", 1) for line in lines]
    shown = [f"      {name} = {_value(name, value)};" for name, value in pairs]
    return ["    nix.settings = {", *shown, "    };"]


def _value(name: str, value: str) -> str:
    return f'"{value}"' if name == "netrc-file" else f"[ {' '.join(f'{chr(34)}{word}{chr(34)}' for word in value.split())} ]"


async def _agreed() -> bool:
    """Whether the person at the terminal says yes. A thread waits for the answer, so that Ctrl-C ends the program."""
    if not sys.stdin.isatty():
        raise click.UsageError("there is no terminal to ask at: say --yes, or --dry-run")
    try:
        return await asyncio.to_thread(click.confirm, "Write that?", err=True)
    except click.Abort:  # the end of the input
        return False
