"""GrpcDeltas: deltas that a server makes and applies."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from tvix_store.backends.grpc.connection import Connection
from tvix_store.backends.grpc.contents import MESSAGE
from tvix_store.backends.grpc.received import decoding
from tvix_store.compression.delta import MAX_FRAME
from tvix_store.errors import CorruptError, ExhaustedError, UnsupportedError
from tvix_store.model.digest import Digest
from tvix_store.protocol.deltas import DeltaRequest, decode_delta_piece, encode_delta_piece, encode_delta_request
from tvix_store.protocol.dialects import BULK_SERVICE
from tvix_store.services.blobs import Chunk


class GrpcDeltas:
    """A Deltas over BulkService. A server whose store cannot work with deltas declines each."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def make(self, base: Digest, target: Chunk, most: int) -> bytes | None:
        request = encode_delta_request(DeltaRequest(base, target.digest, target.size, most))
        delta = bytearray()
        calling = self._connection.receive(f"/{BULK_SERVICE}/MakeDelta", request, ("blob", target.digest))
        try:
            async with aclosing(calling) as messages:
                async for message in messages:
                    with decoding(self._connection.server):
                        _, data = decode_delta_piece(message)
                    delta += data
                    if not data or len(delta) > min(most, MAX_FRAME):
                        raise CorruptError(f"{self._connection.server}: the server sent a delta of more than {most} bytes, or none")
        except (ExhaustedError, UnsupportedError):
            return None
        return bytes(delta) if delta else None

    async def apply(self, base: Digest, target: Chunk, delta: bytes) -> None:
        request = DeltaRequest(base, target.digest, target.size)
        most = self._connection.most_sent
        if most is not None and len(delta) > most:
            raise ExhaustedError(f"a delta of {len(delta)} bytes is too large for a request of at most {most}")

        async def messages() -> AsyncGenerator[bytes, None]:
            yield encode_delta_piece(memoryview(delta)[:MESSAGE], request)
            for at in range(MESSAGE, len(delta), MESSAGE):
                yield encode_delta_piece(memoryview(delta)[at : at + MESSAGE])

        try:
            await self._connection.send(f"/{BULK_SERVICE}/ApplyDelta", messages, ("blob", target.digest))
        except UnsupportedError as error:
            raise ExhaustedError(f"{self._connection.server} works with no deltas") from error
