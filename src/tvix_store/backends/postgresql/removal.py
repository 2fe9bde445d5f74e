"""PostgresRemoval: path infos are removed from a database, while others put and use paths.

A path goes before those that it refers to, some at a time. A transaction locks the rows of some paths, and looks then for uses and
for paths that refer to them. A put that requires one of these paths waits for it. So it finds the path gone, or its reference is
found: see docs/design/postgresql.md.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from tvix_store.backends.postgresql.database import Database
from tvix_store.backends.postgresql.driver import Connection
from tvix_store.backends.postgresql.hexes import hexes, statement
from tvix_store.model.path_info import PathInfo
from tvix_store.services.batches import parts
from tvix_store.services.reference_order import References, batches, closure
from tvix_store.services.removal import Guard, RemovalTerms, read_hour, used_key

_AT_ONCE = 500
"""Path infos that one transaction removes. Puts that require them wait for it."""

_GET = statement("SELECT encoded FROM path_infos WHERE output_hash IN GIVEN($1)")
_LOCK = statement("SELECT output_hash, encoded FROM path_infos WHERE output_hash IN GIVEN($1) ORDER BY output_hash FOR UPDATE")
_GUARD = "SELECT value FROM records WHERE key = $1 FOR KEY SHARE"
_USES = statement("SELECT key, value FROM records WHERE key IN GIVEN($1)")
_NEEDED = statement("""
SELECT DISTINCT reference FROM path_references
LEFT JOIN GIVEN($1) AS gone (output_hash) ON gone.output_hash = path_references.path
WHERE reference IN GIVEN($1) AND gone.output_hash IS NULL
""")
_DELETE = statement("DELETE FROM path_infos WHERE output_hash IN GIVEN($1)")
_DELETE_REFERENCES = statement("DELETE FROM path_references WHERE (reference, path) IN ROWS(reference, path)")
_DELETE_RECORDS = statement("DELETE FROM records WHERE key IN GIVEN($1)")


class PostgresRemoval:
    """The Removal of a database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def remove(
        self,
        output_hashes: Collection[bytes],
        *,
        unused_since: int | None,
        ignore_references: bool = False,
        guard: Guard | None = None,
    ) -> set[bytes]:
        terms = RemovalTerms(unused_since, ignore_references, guard)
        wanted = set(output_hashes)
        references: dict[bytes, Sequence[bytes]] = {}
        for some in parts(list(wanted), _AT_ONCE):
            for [encoded] in await self._database.fetch(_GET, hexes(some)):
                output_hash, to = PathInfo.stored(encoded).output_hashes
                references[output_hash] = [each for each in to if each in wanted and each != output_hash]
        removed: set[bytes] = set()
        for batch in await asyncio.to_thread(batches, references, _AT_ONCE):
            removed |= await self._database.transaction(_Batch(batch, terms).remove)
        return removed


@dataclass(frozen=True, slots=True)
class _Batch:
    """Some paths that may go, in one transaction."""

    output_hashes: Sequence[bytes]
    terms: RemovalTerms

    async def remove(self, connection: Connection) -> set[bytes]:
        """Remove those that nothing keeps; which these are."""
        guard = self.terms.guard
        if guard is not None:
            values = [value for [value] in await connection.fetch(_GUARD, guard.key)]
            if values != ([] if guard.value is None else [guard.value]):
                return set()
        rows = await connection.fetch(_LOCK, hexes(self.output_hashes))
        # Behind the locks: who uses one of these paths from now on finds it gone.
        references = {each: PathInfo.stored(encoded).output_hashes[1] for each, encoded in rows}
        gone = list(references.keys() - await self._staying(connection, references))
        if gone:
            await connection.fetch(_DELETE, hexes(gone))
            await connection.fetch(_DELETE_REFERENCES, *_pairs(references, gone))
            await connection.fetch(_DELETE_RECORDS, hexes(map(used_key, gone)))
        return set(gone)

    async def _staying(self, connection: Connection, references: References) -> set[bytes]:
        """The paths that are used, or needed by what stays."""
        candidates = list(references)
        found: list[bytes] = []
        since = self.terms.unused_since
        if since is not None:
            keys = {used_key(each): each for each in candidates}
            uses = await connection.fetch(_USES, hexes(keys))
            found += [keys[key] for key, hour in uses if read_hour(hour) >= since]
        if self.terms.ignore_references:
            return set(found)
        found += [each for [each] in await connection.fetch(_NEEDED, hexes(candidates))]
        return closure(references, found)


def _pairs(references: References, gone: Sequence[bytes]) -> tuple[list[str], list[str]]:
    """The references of paths, and beside each the path that has it."""
    pairs = [(to, each) for each in gone for to in references[each]]
    return hexes(to for to, _ in pairs), hexes(each for _, each in pairs)
