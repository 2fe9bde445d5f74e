"""GrpcNarIntake: NARs that a server of ours takes apart."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable
from contextlib import aclosing

from tvix_store.backends.grpc.connection import Connection
from tvix_store.backends.grpc.contents import in_messages
from tvix_store.backends.grpc.received import decoding
from tvix_store.model.nodes import Node
from tvix_store.model.path_info import NarFacts
from tvix_store.protocol.blobs import encode_chunk
from tvix_store.protocol.dialects import NAR_SERVICE
from tvix_store.protocol.nars import decode_stored_nar


class GrpcNarIntake:
    """A NarIntake over a connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def put(self, nar: AsyncIterable[bytes]) -> tuple[Node, NarFacts]:
        async def messages() -> AsyncGenerator[bytes, None]:
            async with aclosing(in_messages(nar)) as pieces:
                async for piece in pieces:
                    yield encode_chunk(piece)

        answer = await self._connection.send_once(f"/{NAR_SERVICE}/Put", messages(), ("NAR", "that is being put"))
        with decoding(self._connection.server):
            return decode_stored_nar(answer)
