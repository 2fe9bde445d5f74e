"""NixDatabase: the valid paths of a store of Nix, in the order in which they became valid, and what Nix knows of them.

Source: nix, src/libstore/schema.sql. Each valid path is a row of `ValidPaths`. Its `id` is larger than those of all rows before it,
also of rows that are gone. Nix writes a row when the content is complete, so nothing else is asked or watched. `Refs` has a row for
each reference.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tvix_store.errors import InvalidError, UnavailableError
from tvix_store.operations.paths.nix_json import Json
from tvix_store.services.batches import parts

_NEXT = "SELECT id, path, sigs FROM ValidPaths WHERE id > ? ORDER BY id LIMIT ?"
_NEWEST = "SELECT seq FROM sqlite_sequence WHERE name = 'ValidPaths'"
_FACTS = "SELECT id, path, hash, narSize, deriver, sigs, ca FROM ValidPaths WHERE"
_REFERENCES = "SELECT referrer, reference FROM Refs WHERE referrer"
_AT_ONCE = 500
"""Values in a query. Old versions of SQLite take up to 999."""
_PATIENCE = 5.0
"""Seconds to wait for a writer, where the database has no write-ahead log."""


@dataclass(frozen=True, slots=True)
class ValidPath:
    """A path that is valid since row `number`, with the names of the keys that have signed it."""

    number: int
    path: str
    signed_by: frozenset[str]


@dataclass(frozen=True, slots=True)
class NixDatabase:
    """The database in `file`. Each look opens it anew: it is never held, and may be replaced. All methods block, and raise:

    InvalidError: it is not there.
    UnavailableError: it cannot be read now.
    """

    file: Path

    def newest(self) -> int:
        """The number of the newest path that there has been; 0 for none."""
        with self._opened() as database:
            row = database.execute(_NEWEST).fetchone()
        return int(row[0]) if row else 0

    def after(self, number: int, most: int = 1000) -> list[ValidPath]:
        """The oldest paths behind a number."""
        with self._opened() as database:
            rows = database.execute(_NEXT, (number, most)).fetchall()
        return [
            ValidPath(int(row), path, frozenset(each.partition(":")[0] for each in (sigs or "").split()))
            for row, path, sigs in rows
        ]

    def closure(self, paths: Sequence[str]) -> dict[str, Json]:
        """Nix's descriptions of all that the absolute `paths` refer to, and of themselves, as `nix path-info --json` has them.

        They are read from one state of the database. Raises InvalidError also where a path is not valid.
        """
        with self._opened(unlocked=False) as database:
            database.execute("BEGIN")
            return _Closure(database).read(paths)

    @contextmanager
    def _opened(self, *, unlocked: bool = True) -> Iterator[sqlite3.Connection]:
        if not self.file.exists():
            raise InvalidError(f"Nix has no database at {self.file}; --nix-store says where its store is")
        try:
            with closing(self._connect(unlocked=unlocked)) as database:
                yield database
        except sqlite3.Error as error:
            raise UnavailableError(f"cannot read Nix's database {self.file}: {error}") from None

    def _connect(self, *, unlocked: bool) -> sqlite3.Connection:
        """`unlocked`: where no lock can be had, do without."""
        address = f"{self.file.absolute().as_uri()}?mode=ro"
        database = sqlite3.connect(address, uri=True, timeout=_PATIENCE)
        try:
            database.execute("SELECT 1 FROM ValidPaths LIMIT 1")
        except sqlite3.OperationalError:
            # Whoever may not write cannot open a write-ahead log that nobody has open. All is in the file itself then.
            database.close()
            if not unlocked or self.file.with_name(f"{self.file.name}-wal").exists():
                raise
            database = sqlite3.connect(f"{address}&immutable=1", uri=True, timeout=_PATIENCE)
        return database


class _Closure:
    """Reads a closure, level by level: each row once."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database
        self._names: dict[int, str] = {}
        self._found: dict[str, dict[str, Any]] = {}

    def read(self, paths: Sequence[str]) -> dict[str, Json]:
        new = self._add("path", paths)
        missing = [path for path in paths if path not in self._found]
        if missing:
            raise InvalidError(f"{missing[0]} is not a valid path in the store of Nix")
        references: list[tuple[int, int]] = []
        while new:
            found = list(self._rows(_REFERENCES, new))
            references += found
            new = self._add("id", {reference for _, reference in found if reference not in self._names})
        for name, referrer in sorted((self._names[reference], referrer) for referrer, reference in references):
            self._found[self._names[referrer]]["references"].append(name)
        return dict(sorted(self._found.items()))  # as Nix prints them

    def _add(self, column: str, values: Iterable[str | int]) -> list[int]:
        """Add the rows with these values, and return their numbers."""
        new: list[int] = []
        for number, path, nar_hash, size, deriver, signatures, ca in self._rows(f"{_FACTS} {column}", values):
            new.append(number)
            self._names[number] = path
            self._found[path] = {
                "narHash": nar_hash,
                "narSize": size,
                "references": [],
                "deriver": deriver or None,
                "signatures": (signatures or "").split(),
                "ca": ca or None,
            }
        return new

    def _rows(self, query: str, values: Iterable[str | int]) -> Iterator[tuple[Any, ...]]:
        for some in parts(list(values), _AT_ONCE):
            yield from self._database.execute(f"{query} IN ({','.join('?' * len(some))})", some)
