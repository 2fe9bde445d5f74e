"""PostgresRecords: records as rows."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence

from tvix_store.backends.postgresql.database import Database
from tvix_store.backends.postgresql.driver import Connection
from tvix_store.backends.postgresql.hexes import hexes, statement
from tvix_store.services.records import Changes, check_records

_PAGE = 256
"""Records that `list` fetches at a time: up to 16 MiB."""


class PostgresRecords:
    """The RecordService of a database. Each put is one statement, and as durable as the database's commits."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, key: bytes) -> bytes | None:
        rows = await self._database.fetch("SELECT value FROM records WHERE key = $1", key)
        return rows[0][0] if rows else None

    async def put(self, records: Mapping[bytes, bytes], *, durable: bool = True) -> None:
        check_records(records)
        if records:
            keys = sorted(records)  # two puts of the same records do not wait for each other
            await self._database.fetch(_PUT, hexes(keys), hexes(records[key] for key in keys))

    async def delete(self, keys: Collection[bytes]) -> None:
        if keys:
            await self._database.fetch(_DELETE, hexes(keys))

    async def exchange(self, changes: Changes) -> int:
        check_records({key: new for key, (_, new) in changes.items() if new is not None})
        there = [(key, expected, new) for key, (expected, new) in sorted(changes.items()) if expected is not None]
        updates = [(key, expected, new) for key, expected, new in there if new is not None]
        deletions = [(key, expected) for key, expected, new in there if new is None]
        insertions = [(key, new) for key, (expected, new) in sorted(changes.items()) if expected is None and new is not None]
        kinds: list[tuple[str, Sequence[tuple[bytes, ...]]]]
        kinds = [(_INSERT, insertions), (_UPDATE, updates), (_DELETE_EXPECTED, deletions)]
        statements = [(query, [*map(hexes, zip(*rows, strict=True))]) for query, rows in kinds if rows]

        async def exchange(connection: Connection) -> int:
            return sum([len(await connection.fetch(query, *columns)) for query, columns in statements])

        if not statements:
            return 0
        # Not done twice: what was done before the connection was lost would not be counted. A single statement is a transaction.
        done = self._database.run if len(statements) == 1 else self._database.transaction
        return await done(exchange, twice=False)

    async def list(self, prefix: bytes = b"") -> AsyncIterator[tuple[bytes, bytes]]:
        behind, end = b"", _behind(prefix)
        while True:
            rows = await self._database.fetch(_LIST, prefix, behind, end, _PAGE)
            for key, value in rows:
                yield key, value
            if len(rows) < _PAGE:
                return
            behind = rows[-1][0]


_PUT = statement("""
INSERT INTO records (key, value) SELECT key, value FROM ROWS(key, value) AS put
ON CONFLICT (key) DO UPDATE SET value = excluded.value
""")
_INSERT = statement("""
INSERT INTO records (key, value) SELECT key, value FROM ROWS(key, value) AS new ON CONFLICT (key) DO NOTHING RETURNING key
""")
_UPDATE = statement("""
UPDATE records SET value = changes.new FROM ROWS(key, expected, new) AS changes
WHERE records.key = changes.key AND records.value = changes.expected RETURNING records.key
""")
_DELETE_EXPECTED = statement("DELETE FROM records WHERE (key, value) IN ROWS(key, expected) RETURNING key")
_DELETE = statement("DELETE FROM records WHERE key IN GIVEN($1)")
_LIST = """
SELECT key, value FROM records WHERE key >= $1 AND key > $2 AND ($3::bytea IS NULL OR key < $3) ORDER BY key LIMIT $4
"""


def _behind(prefix: bytes) -> bytes | None:
    """The least key behind all that begin with `prefix`, or None if there is none."""
    begin = prefix.rstrip(b"\xff")
    return begin[:-1] + bytes([begin[-1] + 1]) if begin else None
