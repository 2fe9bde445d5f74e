"""WholeBlobs: single blobs over a dialect's BlobService."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from blake3 import blake3

from tvix_store.backends.grpc.channel import Metadata
from tvix_store.backends.grpc.connection import Connection
from tvix_store.backends.grpc.contents import joined_chunks, verified
from tvix_store.backends.grpc.received import check_stored, decoding
from tvix_store.errors import NotFoundError
from tvix_store.model.digest import Digest
from tvix_store.protocol.blobs import decode_stat, encode_chunk, encode_digest, encode_stat_request
from tvix_store.protocol.dialects import Dialect
from tvix_store.services.blobs import Chunk


class WholeBlobs:
    """SingleBlobs that are sent and read whole. A chunk can be read as a blob."""

    def __init__(self, connection: Connection, dialect: Dialect) -> None:
        self._connection = connection
        self._dialect = dialect

    async def is_there(self, digest: Digest) -> bool:
        return await self._stat(digest, chunks=False) is not None

    async def chunks(self, digest: Digest) -> Sequence[Chunk] | None:
        answer = await self._stat(digest, chunks=True)
        if answer is None:
            return None
        with decoding(self._connection.server):
            return [Chunk(*part) for part in decode_stat(self._dialect, answer)]

    async def read(self, digest: Digest) -> AsyncGenerator[bytes, None]:
        async with aclosing(verified(self._pieces(digest), digest, self._connection.server)) as pieces:
            async for piece in pieces:
                yield piece

    def read_chunk(self, chunk: Chunk) -> AsyncGenerator[bytes, None]:
        return self.read(chunk.digest)

    async def put(self, digest: Digest, blob: bytes) -> None:
        answer = await self._connection.call(self._dialect.blob("Put"), encode_chunk(blob), ("blob", digest))
        check_stored(answer, digest, self._connection.server)

    async def put_stream(self, first: bytes, rest: AsyncGenerator[bytes, None], metadata: Metadata) -> Digest:
        hasher = blake3(first)

        async def messages() -> AsyncGenerator[bytes, None]:
            yield encode_chunk(first)
            async for piece in rest:
                hasher.update(piece)
                yield encode_chunk(piece)

        subject = "blob", "that is being put"
        answer = await self._connection.send_once(self._dialect.blob("Put"), messages(), subject, metadata)
        digest = Digest(hasher.digest())
        check_stored(answer, digest, self._connection.server)
        return digest

    async def _stat(self, digest: Digest, *, chunks: bool) -> bytes | None:
        request = encode_stat_request(digest, chunks=chunks)
        try:
            return await self._connection.call(self._dialect.blob("Stat"), request, ("blob", digest))
        except NotFoundError:
            return None

    async def _pieces(self, digest: Digest) -> AsyncGenerator[bytes, None]:
        receiving = self._connection.receive_batches(self._dialect.blob("Read"), encode_digest(digest), ("blob", digest))
        async with aclosing(receiving) as batches:
            async for batch in batches:
                with decoding(self._connection.server):
                    piece = joined_chunks(batch)
                yield piece
