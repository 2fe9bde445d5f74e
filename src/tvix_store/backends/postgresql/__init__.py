"""The backend `postgresql://`: directories, path infos and records in a PostgreSQL database, or one that speaks its protocol.

Blobs stand elsewhere. Many processes use a database at once. docs/design/postgresql.md has the tables, and why they are safe.
"""

from __future__ import annotations

from tvix_store.backends.postgresql.database import Database
from tvix_store.backends.postgresql.directories import PostgresDirectories
from tvix_store.backends.postgresql.path_infos import PostgresPathInfos
from tvix_store.backends.postgresql.records import PostgresRecords
from tvix_store.backends.postgresql.removal import PostgresRemoval
from tvix_store.backends.postgresql.schema import open_schema
from tvix_store.backends.postgresql.settings import Settings
from tvix_store.backends.postgresql.statistics import PostgresStatistics
from tvix_store.model.directory import SizeRule
from tvix_store.services.offer import Offer

__all__ = ["Settings", "open_offer"]


async def open_offer(
    settings: Settings, *, store_dir: str | None = None, size_rule: SizeRule | None = None, create: bool = True
) -> Offer:
    """The services in a database. They belong to the running event loop.

    Its tables are made where there are none, unless `create` is False. They are for one `store_dir` and one `size_rule`; None is
    what the tables were made for, and for new ones `/nix/store` and the documented rule.

    Raises:
        InvalidError: the settings are no good, or the tables are for another store directory or size rule.
        NoStoreError: there is no such database; or no table, and none is to be made.
        UnavailableError: the server is not there, or a newer version of tvix-store has made the tables.
        DeniedError: the server does not let us in, or the user lacks a right.
    """
    database = await Database.open(settings)
    try:
        facts = await open_schema(database, store_dir, size_rule, create=create)
    except BaseException:
        await database.close()
        raise
    path_infos = PostgresPathInfos(database)
    return Offer(
        name=settings.name,
        directories=PostgresDirectories(database),
        path_infos=path_infos,
        records=PostgresRecords(database),
        named_paths=path_infos,
        arrivals=path_infos,
        removal=PostgresRemoval(database),
        statistics=PostgresStatistics(database),
        store_dir=facts.store_dir,
        size_rule=facts.size_rule,
        check=database.check,
        close=database.close,
    )
