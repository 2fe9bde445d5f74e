"""PostgresDirectories: directories as rows, by their digests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Sequence

from tvix_store.backends.postgresql.database import Database
from tvix_store.backends.postgresql.driver import Connection
from tvix_store.backends.postgresql.hexes import hexes, statement
from tvix_store.errors import CorruptError, NotFoundError
from tvix_store.model.digest import Digest
from tvix_store.model.directory import Directory
from tvix_store.model.directory_graph import LeavesToRoot
from tvix_store.model.nodes import Node
from tvix_store.services.batches import filling, parts
from tvix_store.services.directories import parse
from tvix_store.services.held_graphs import HeldGraphs
from tvix_store.services.stored_tree import StoredTree

_PAGE = 256
"""Directories that one statement fetches."""
_SMALL = 64 << 10
"""Bytes of the largest directory that is fetched with others. So a page takes at most 16 MiB of memory."""
_DIGESTS = 10_000
"""Digests in one question: 320 KB."""
_INSERT_SIZE, _INSERT_COUNT = 4 << 20, 2000
"""Bytes and directories that one statement stores."""
_HASHED_HERE = 1 << 20
"""Bytes that are hashed on the event loop: 1 ms."""

_GET = "SELECT encoded FROM directories WHERE digest = $1"
_GET_MANY = statement("""
SELECT digest, CASE WHEN octet_length(encoded) <= $2 THEN encoded END FROM directories WHERE digest IN GIVEN($1)
""")
_KNOWN = statement("SELECT digest FROM directories WHERE digest IN GIVEN($1)")
_PUT = statement("""
INSERT INTO directories (digest, encoded) SELECT digest, encoded FROM ROWS(digest, encoded) AS put
ON CONFLICT (digest) DO NOTHING
""")


class PostgresDirectories:
    """The DirectoryService of a database. Nothing is ever deleted, and a graph is stored in one transaction.

    So a directory that is there has all that it reaches, and of a graph only what is new is sent.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._graphs = HeldGraphs()

    async def get(self, digest: Digest) -> Directory | None:
        rows = await self._database.fetch(_GET, digest.raw)
        return await _checked(digest, rows[0][0]) if rows else None

    async def get_recursive(self, digest: Digest) -> AsyncIterator[Directory]:
        level, seen = [digest], {digest.raw}
        while level:
            below: list[Digest] = []
            for some in parts(level, _PAGE):
                async for directory in self._each(some):
                    await parse(directory)  # of a large one, its child directories alone would take long
                    yield directory
                    for _, child in directory.directories():
                        if child.digest.raw not in seen:
                            seen.add(child.digest.raw)
                            below.append(child.digest)
            level = below

    async def _each(self, digests: Sequence[Digest]) -> AsyncIterator[Directory]:
        """The directories with these digests, in order."""
        rows = await self._database.fetch(_GET_MANY, hexes(digest.raw for digest in digests), _SMALL)
        found = {row[0]: row[1] for row in rows}
        for digest in digests:
            encoded = found.get(digest.raw)
            directory = await (self.get(digest) if encoded is None and digest.raw in found else _optional(digest, encoded))
            if directory is None:
                raise NotFoundError("directory", digest)
            yield directory

    def tree(self, root: Node) -> StoredTree:
        return StoredTree(self, root)

    async def put(self, directories: AsyncIterable[Directory]) -> Digest:
        graph = LeavesToRoot()
        received: dict[bytes, bytes] = {}
        with self._graphs.graph() as held:
            async for directory in directories:
                await parse(directory)
                graph.add(directory)
                if directory.digest.raw not in received:
                    received[directory.digest.raw] = directory.encoded
                    held.add(directory)
            root = graph.finish()
            await self._store(received)
            return root

    async def _store(self, received: dict[bytes, bytes]) -> None:
        for some in parts(list(received), _DIGESTS):
            for [known] in await self._database.fetch(_KNOWN, hexes(some)):
                del received[known]
        # In order: two puts of the same directories do not wait for each other.
        batches = list(filling(sorted(received.items()), lambda row: len(row[1]), size=_INSERT_SIZE, count=_INSERT_COUNT))

        async def insert(connection: Connection) -> None:
            for batch in batches:
                await connection.fetch(_PUT, *map(hexes, zip(*batch, strict=True)))

        if len(batches) == 1:
            await self._database.run(insert)  # a statement is a transaction
        elif batches:
            await self._database.transaction(insert)


async def _optional(digest: Digest, encoded: bytes | None) -> Directory | None:
    return None if encoded is None else await _checked(digest, encoded)


async def _checked(digest: Digest, encoded: bytes) -> Directory:
    """The directory, if its bytes are right."""
    large = len(encoded) > _HASHED_HERE
    found = await asyncio.to_thread(Digest.of, encoded) if large else Digest.of(encoded)
    if found != digest:
        raise CorruptError(f"the database has other bytes for directory {digest}")
    return Directory.stored(digest, encoded)
