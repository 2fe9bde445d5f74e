"""PostgresStatistics: how much a database holds, by counting its rows."""

from __future__ import annotations

from tvix_store.backends.postgresql.database import Database
from tvix_store.services.statistics import Stats

_PATH_INFOS = "SELECT count(*), coalesce(sum(nar_size), 0), coalesce(sum(octet_length(encoded)), 0) FROM path_infos"
_DIRECTORIES = "SELECT count(*), coalesce(sum(octet_length(encoded)), 0) FROM directories"


class PostgresStatistics:
    """The Statistics of a database, which has no blobs. Its bytes are those of its values, without what the database adds."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def stats(self) -> Stats:
        [[path_infos, logical_bytes, size_of_path_infos]] = await self._database.fetch(_PATH_INFOS)
        [[directories, size_of_directories]] = await self._database.fetch(_DIRECTORIES)
        return Stats(
            path_infos=path_infos,
            directories=directories,
            chunked_blobs=0,
            chunks=0,
            logical_bytes=int(logical_bytes),
            unique_bytes=0,
            stored_bytes=0,
            disk_bytes=int(size_of_path_infos) + int(size_of_directories),
        )
