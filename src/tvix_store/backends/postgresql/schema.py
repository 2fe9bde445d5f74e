"""The tables, their version, and how they are made and brought up to it, by many processes at once.

The row of the table `store` has the version. A process locks it, and does one statement that is missing, then the next. Databases
other than PostgreSQL do not undo changes of tables with a transaction, or allow only one in each. So each statement does nothing
where its work is done already. What makes the row itself has no lock: a race between two is done again.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from tvix_store.backends.postgresql.database import Database
from tvix_store.backends.postgresql.driver import Connection
from tvix_store.errors import InvalidError, NoStoreError, UnavailableError
from tvix_store.model.directory import SizeRule
from tvix_store.model.store_path import STORE_DIR

_STORE = """
CREATE TABLE IF NOT EXISTS store (
    id SMALLINT PRIMARY KEY,
    version BIGINT NOT NULL,
    store_dir TEXT NOT NULL,
    size_rule TEXT NOT NULL
)
"""
_STEPS: tuple[tuple[str, ...], ...] = (
    (
        "CREATE TABLE IF NOT EXISTS directories (digest BYTEA PRIMARY KEY, encoded BYTEA NOT NULL)",
        """
        CREATE TABLE IF NOT EXISTS path_infos (
            output_hash BYTEA PRIMARY KEY,
            name TEXT NOT NULL,
            package TEXT NOT NULL,
            nar_size NUMERIC(20, 0) NOT NULL,
            changed BIGINT NOT NULL,
            encoded BYTEA NOT NULL
        )
        """,
        "CREATE INDEX IF NOT EXISTS path_infos_by_package ON path_infos (package)",
        """
        CREATE TABLE IF NOT EXISTS path_references (
            reference BYTEA NOT NULL,
            path BYTEA NOT NULL,
            PRIMARY KEY (reference, path)
        )
        """,
        "CREATE TABLE IF NOT EXISTS records (key BYTEA PRIMARY KEY, value BYTEA NOT NULL)",
    ),
)
"""The statements that lead to version 1, 2, …. Older processes may be at work meanwhile, and know nothing of them."""
VERSION = len(_STEPS)
_RACES = frozenset(("23505", "42P06", "42P07", "XX000"))
"""SQLSTATEs of two that make the same schema or table at once: each looks first, and one of them comes second."""


@dataclass(frozen=True, slots=True)
class StoreFacts:
    """What was fixed when a store was made, for all that use it."""

    version: int
    store_dir: str
    size_rule: SizeRule


async def open_schema(database: Database, store_dir: str | None, size_rule: SizeRule | None, *, create: bool) -> StoreFacts:
    """The facts of the store in the database; None is any. It is made, or brought up to our version, where that is due.

    Raises:
        InvalidError: the store was made for another store directory or size rule.
        NoStoreError: there is none, and none is to be made.
        UnavailableError: a newer version of tvix-store has made it.
        DeniedError: the user may not read it, or make it.
    """
    name, schema = database.settings.name, database.settings.schema
    facts = await _found(database)
    if facts is None:
        if not create:
            raise NoStoreError(f"there is no store in the schema {schema} of {name}")
        await _make(database, store_dir or STORE_DIR, size_rule or SizeRule.DOCUMENTED)
    if facts is None or facts.version < VERSION:
        await _bring_up(database)
        facts = await _found(database)
        assert facts is not None
    if facts.version > VERSION:
        raise UnavailableError(
            f"{name}: the tables are of version {facts.version}, made by a newer tvix-store; this one knows up to {VERSION}"
        )
    if store_dir not in (None, facts.store_dir):
        raise InvalidError(f"{name} holds paths of {facts.store_dir}, not of {store_dir}; another ?schema=NAME is another store")
    if size_rule not in (None, facts.size_rule):
        raise InvalidError(f"{name} was made with size_rule={facts.size_rule.name.lower()}; leave the parameter out")
    return facts


async def _found(database: Database) -> StoreFacts | None:
    tables = "SELECT 1 FROM information_schema.tables WHERE table_schema = $1 AND table_name = 'store'"
    # Not again where nobody is there: it is the first question.
    if not await database.run(lambda connection: connection.fetch(tables, database.settings.schema), twice=False):
        return None
    rows = await database.fetch("SELECT version, store_dir, size_rule FROM store WHERE id = 1")
    return StoreFacts(rows[0][0], rows[0][1], SizeRule[rows[0][2]]) if rows else None


async def _make(database: Database, store_dir: str, size_rule: SizeRule) -> None:
    """Make the schema and the row of a store of version 0, where they are not there."""
    schema = database.settings.schema

    async def make(connection: Connection) -> None:
        # Whoever may not make schemas may use one that was made before.
        if not await connection.fetch("SELECT 1 FROM information_schema.schemata WHERE schema_name = $1", schema):
            await connection.execute(f'CREATE SCHEMA IF NOT EXISTS "{schema}"')
        await connection.execute(_STORE)
        row = "INSERT INTO store (id, version, store_dir, size_rule) VALUES (1, 0, $1, $2) ON CONFLICT (id) DO NOTHING"
        await connection.execute(row, store_dir, size_rule.name)

    await database.run(make, conflicts=_RACES)


async def _bring_up(database: Database) -> None:
    """Do the statements that are missing."""
    for version, step in enumerate(_STEPS):
        for statement in (*step, f"UPDATE store SET version = {version + 1} WHERE id = 1"):  # noqa: S608 - a number
            await database.run(partial(_do, version, statement), conflicts=_RACES)


async def _do(version: int, statement: str, connection: Connection) -> None:
    """Do a statement that is due after a version."""
    async with connection.transaction():
        [[current]] = await connection.fetch("SELECT version FROM store WHERE id = 1 FOR UPDATE")
        if current == version:
            await connection.execute(statement)
