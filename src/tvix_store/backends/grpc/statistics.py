"""GrpcStatistics: the counts of a server of ours."""

from __future__ import annotations

from tvix_store.backends.grpc.channel import THOROUGH
from tvix_store.backends.grpc.connection import Connection
from tvix_store.backends.grpc.received import decoding
from tvix_store.protocol.dialects import STATISTICS_SERVICE
from tvix_store.protocol.statistics import decode_statistics
from tvix_store.services.statistics import Stats


class GrpcStatistics:
    """The Statistics of a server that has our StatisticsService."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def stats(self) -> Stats:
        answer = await self._connection.call(f"/{STATISTICS_SERVICE}/Get", b"", ("service", STATISTICS_SERVICE), seconds=THOROUGH)
        with decoding(self._connection.server):
            return Stats(*decode_statistics(answer))
