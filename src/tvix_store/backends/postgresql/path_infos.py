"""PostgresPathInfos: path infos as rows, by output hash.

A put is one statement, or three where the path is there already. Each of them is a transaction of its own. That is enough:
see docs/design/postgresql.md.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from typing import Any

from tvix_store.backends.postgresql.database import Database
from tvix_store.backends.postgresql.hexes import hexes, statement
from tvix_store.errors import CorruptError, IncompleteError, UnavailableError
from tvix_store.model.package_name import PackageName, nearest_first
from tvix_store.model.path_info import PathInfo, belongs_to
from tvix_store.model.store_path import StorePath
from tvix_store.model.trust import NOBODY, Trust
from tvix_store.services.batches import parts

_PAGE = 256
"""Path infos that `list` fetches at a time."""
_MANY = 1000
"""Path infos that one statement fetches."""
_HASHES = 10_000
"""Output hashes in one question, or one answer."""
_VERSIONS = 1000
"""Paths of one package that are looked at: thousands may have the name `source`."""
_TRIES = 50
"""How often a put begins anew, since others put or remove the same path."""
_MERGED_HERE = 64 << 10
"""Bytes of a path info that is merged on the event loop."""

GET = "SELECT encoded FROM path_infos WHERE output_hash = $1"
_GET_LOCKED = GET + " FOR KEY SHARE"
_GET_MANY = statement("SELECT output_hash, encoded FROM path_infos WHERE output_hash IN GIVEN($1)")
_EXISTING = statement("SELECT output_hash, name FROM path_infos WHERE output_hash IN GIVEN($1)")
_LIST = "SELECT output_hash, encoded FROM path_infos WHERE output_hash > $1 ORDER BY output_hash LIMIT $2"
_ORDER = "SELECT output_hash, changed FROM path_infos WHERE output_hash > $1 ORDER BY output_hash LIMIT $2"
_OF_PACKAGE = "SELECT output_hash, name FROM path_infos WHERE package = $1 LIMIT $2"
PUT = statement("""
WITH required AS (
    SELECT output_hash FROM path_infos WHERE output_hash IN GIVEN($7) FOR KEY SHARE
), put AS (
    INSERT INTO path_infos (output_hash, name, package, nar_size, changed, encoded)
    SELECT $1::bytea, $2::text, $3::text, $4::numeric, CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS BIGINT), $5::bytea
    WHERE (SELECT count(*) FROM required) = $8
    ON CONFLICT (output_hash) DO NOTHING
    RETURNING output_hash
), referring AS (
    INSERT INTO path_references (reference, path)
    SELECT reference, output_hash FROM put, GIVEN($6) AS each_of (reference)
    ON CONFLICT (reference, path) DO NOTHING
    RETURNING path
)
SELECT (SELECT count(*) FROM put), (SELECT count(*) FROM required)
""")
_CHANGE = """
UPDATE path_infos
SET encoded = $2, changed = GREATEST(changed + 1, CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS BIGINT))
WHERE output_hash = $1 AND encoded = $3
RETURNING output_hash
"""


class PostgresPathInfos:
    """The PathInfoService of a database, its NamedPaths and Arrivals."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, output_hash: bytes) -> PathInfo | None:
        rows = await self._database.fetch(GET, output_hash)
        return _stored(output_hash, rows[0][0]) if rows else None

    async def get_many(self, output_hashes: Sequence[bytes]) -> dict[bytes, PathInfo]:
        found: dict[bytes, PathInfo] = {}
        for some in parts(list(dict.fromkeys(output_hashes)), _MANY):
            found |= {each: _stored(each, encoded) for each, encoded in await self._database.fetch(_GET_MANY, hexes(some))}
        return found

    async def existing(self, output_hashes: Sequence[bytes]) -> dict[bytes, StorePath]:
        found: dict[bytes, StorePath] = {}
        for some in parts(list(dict.fromkeys(output_hashes)), _HASHES):
            found |= {each: StorePath(each, name) for each, name in await self._database.fetch(_EXISTING, hexes(some))}
        return found

    async def put(
        self, path_info: PathInfo, trust: Trust = NOBODY, *, requires: Collection[StorePath] = (), calculated: bool = False
    ) -> PathInfo:
        # Nothing is deleted that NARs are calculated from: whether one was calculated does not matter.
        for _ in range(_TRIES):
            stored = await self._new(path_info, requires) or await self._merged(path_info, trust)
            if stored is not None:
                return stored
        raise UnavailableError(f"{path_info.store_path} is put by too many others at once; try again later")

    async def _new(self, path_info: PathInfo, requires: Collection[StorePath]) -> PathInfo | None:
        """Store a path that is new; None where it is there."""
        own = path_info.store_path.output_hash
        references = sorted({each.output_hash for each in path_info.references} - {own})
        required = sorted({each.output_hash for each in requires})
        name = path_info.store_path.name
        row = own, name, _package(name), path_info.nar.size, path_info.encoded, hexes(references)
        [[put, found]] = await self._database.fetch(PUT, *row, hexes(required), len(required))
        if found < len(required):
            there = await self.existing(required)
            missing = next((each for each in requires if each.output_hash not in there), None)
            if missing is None:  # it is there by now: the next try will tell
                return None
            raise IncompleteError(f"{path_info.store_path} refers to {missing}, not in the store; put that first")
        return path_info if put else None

    async def _merged(self, path_info: PathInfo, trust: Trust) -> PathInfo | None:
        """Merge a path with the one that is there; None where that is another one by now, or none."""
        own = path_info.store_path.output_hash
        rows = await self._database.fetch(_GET_LOCKED, own)
        if not rows:
            return None
        known = rows[0][0]
        stored = _stored(own, known)
        if len(known) > _MERGED_HERE:
            stored = await asyncio.to_thread(stored.merged, path_info, trust)
        else:
            stored = stored.merged(path_info, trust)
        if stored.encoded == known or await self._database.fetch(_CHANGE, own, stored.encoded, known):
            return stored
        return None

    async def list(self, after: bytes = b"") -> AsyncIterator[PathInfo]:
        async for output_hash, encoded in self._pages(_LIST, after, _PAGE):
            yield _stored(output_hash, encoded)

    async def order(self) -> dict[bytes, int]:
        """As `Arrivals.order`: by the clock of the server."""
        return {output_hash: changed async for output_hash, changed in self._pages(_ORDER, b"", _HASHES)}

    async def versions(self, path: StorePath) -> Sequence[StorePath]:
        """As `NamedPaths.versions`: some of them, where there are very many."""
        rows = await self._database.fetch(_OF_PACKAGE, _package(path.name), _VERSIONS)
        return nearest_first(path, [StorePath(output_hash, name) for output_hash, name in rows])

    async def _pages(self, query: str, after: bytes, size: int) -> AsyncIterator[Sequence[Any]]:
        """The rows of a query that begin with an output hash, by which they are ordered."""
        while True:
            rows = await self._database.fetch(query, after, size)
            for row in rows:
                yield row
            if len(rows) < size:
                return
            after = rows[-1][0]


def _package(name: str) -> str:
    """The package and its output, of which a path is a version. No name has a slash."""
    package = PackageName.of(name)
    return f"{package.package}/{package.output}"


def _stored(output_hash: bytes, encoded: bytes) -> PathInfo:
    if not belongs_to(encoded, output_hash):
        raise CorruptError(f"the database has the path info of another path for the output hash {output_hash.hex()}")
    return PathInfo.stored(encoded)
