"""NixDatabase: the valid paths of a store of Nix, in the order in which they became valid.

Source: nix, src/libstore/schema.sql. Each valid path is a row of `ValidPaths`. Its `id` is larger than those of all rows before it,
also of rows that are gone. Nix writes a row when the content is complete, so nothing else is asked or watched.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tvix_store.errors import InvalidError, UnavailableError

_NEXT = "SELECT id, path, sigs FROM ValidPaths WHERE id > ? ORDER BY id LIMIT ?"
_NEWEST = "SELECT seq FROM sqlite_sequence WHERE name = 'ValidPaths'"
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

    @contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        if not self.file.exists():
            raise InvalidError(f"Nix has no database at {self.file}; --nix-store says where its store is")
        try:
            with closing(self._connect()) as database:
                yield database
        except sqlite3.Error as error:
            raise UnavailableError(f"cannot read Nix's database {self.file}: {error}") from None

    def _connect(self) -> sqlite3.Connection:
        address = f"{self.file.absolute().as_uri()}?mode=ro"
        database = sqlite3.connect(address, uri=True, timeout=_PATIENCE)
        try:
            database.execute("SELECT 1 FROM ValidPaths LIMIT 1")
        except sqlite3.OperationalError:
            # Whoever may not write cannot open a write-ahead log that nobody has open. All is in the file itself then.
            database.close()
            if self.file.with_name(f"{self.file.name}-wal").exists():
                raise
            database = sqlite3.connect(f"{address}&immutable=1", uri=True, timeout=_PATIENCE)
        return database
