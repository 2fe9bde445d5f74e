"""Settings: where a database is, and how it is used."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Settings:
    """How a database is opened.

    dsn: The URL for the driver, with all secrets.
    name: The same for messages, without secrets: it names the host and the database.
    schema: The schema of the database in which the tables are.
    pool: The most connections that this process has at a time.
    timeout: Seconds after which the server gives up a statement.
    isolation: The level of transactions. PostgreSQL needs no more than this; see docs/design/postgresql.md.
    """

    dsn: str
    name: str
    schema: str = "tvix_store"
    pool: int = 10
    timeout: float = 30.0
    isolation: str = "read committed"
