"""ChunkedBlobs: single blobs over snix's ChunkStoreService and BlobStoreService."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from tvix_store.backends.grpc.channel import THOROUGH, Metadata
from tvix_store.backends.grpc.connection import Connection
from tvix_store.backends.grpc.contents import MESSAGE, joined_chunks, verified
from tvix_store.backends.grpc.received import check_stored, decoding
from tvix_store.chunking import BlobAssembler, CutChunk, cut_blob
from tvix_store.concurrency.each_at_once import each_at_once
from tvix_store.errors import CorruptError, NotFoundError
from tvix_store.model.digest import Digest
from tvix_store.protocol.blobs import encode_chunk, encode_digest
from tvix_store.protocol.chunk_stores import decode_blob_meta, encode_put_blob
from tvix_store.protocol.dialects import BLOB_STORE_SERVICE, CHUNK_STORE_SERVICE
from tvix_store.services.batches import filling
from tvix_store.services.blobs import Chunk


class ChunkedBlobs:
    """SingleBlobs as lists of chunks. Only chunks that the server lacks are sent."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def is_there(self, digest: Digest) -> bool:
        return await self._found(f"/{BLOB_STORE_SERVICE}/StatBlob", digest) is not None

    async def chunks(self, digest: Digest) -> Sequence[Chunk] | None:
        answer = await self._found(f"/{BLOB_STORE_SERVICE}/GetBlob", digest)
        if answer is None:
            return None
        with decoding(self._connection.server):
            return [Chunk(*part) for part in decode_blob_meta(answer)]

    async def read(self, digest: Digest) -> AsyncGenerator[bytes, None]:
        try:  # most blobs are their own only chunk
            async with aclosing(verified(self._chunk(digest), digest, self._connection.server)) as pieces:
                async for piece in pieces:
                    yield piece
            return
        except NotFoundError:  # comes before the first piece
            chunks = await self.chunks(digest)
        if chunks is None:
            raise NotFoundError("blob", digest)
        async with aclosing(verified(self._all(chunks), digest, self._connection.server)) as pieces:
            async for piece in pieces:
                yield piece

    def read_chunk(self, chunk: Chunk) -> AsyncGenerator[bytes, None]:
        return verified(self._chunk(chunk.digest), chunk.digest, self._connection.server)

    async def has_chunk(self, digest: Digest) -> bool:
        return await self._found(f"/{CHUNK_STORE_SERVICE}/StatChunk", digest) is not None

    async def put_chunk(self, digest: Digest, content: bytes) -> None:
        async def messages() -> AsyncGenerator[bytes, None]:
            for at in range(0, max(len(content), 1), MESSAGE):
                yield encode_chunk(content[at : at + MESSAGE])

        answer = await self._connection.send(f"/{CHUNK_STORE_SERVICE}/PutChunk", messages, ("blob", digest))
        check_stored(answer, digest, self._connection.server)

    async def put_blob(self, digest: Digest, chunks: Sequence[Chunk]) -> None:
        """Make a blob of chunks that the server has."""
        request = encode_put_blob(digest, ((chunk.digest, chunk.size) for chunk in chunks))
        await self._connection.call(f"/{BLOB_STORE_SERVICE}/PutBlob", request, ("blob", digest), seconds=THOROUGH)

    async def whole_chunk(self, chunk: Chunk) -> bytes | None:
        """The content of a chunk, verified; None if it has another size than the chunk."""
        pieces: list[bytes] = []
        size = 0
        async with aclosing(self.read_chunk(chunk)) as chunk_pieces:
            async for piece in chunk_pieces:
                size += len(piece)
                if size > chunk.size:
                    break
                pieces.append(piece)
        return b"".join(pieces) if size == chunk.size else None

    async def put(self, digest: Digest, blob: bytes) -> None:
        _, chunks = cut_blob(blob)
        if len(chunks) > 1:
            await self.put_blob(digest, await self._put_missing(chunks))
        elif blob:  # to ask for the chunk would take as long as to send it
            await self.put_chunk(digest, blob)
            await self.put_blob(digest, [Chunk(digest, len(blob))])
        else:
            await self.put_blob(digest, [])

    async def put_stream(self, first: bytes, rest: AsyncGenerator[bytes, None], metadata: Metadata) -> Digest:
        blob = BlobAssembler()
        listed = await self._put_missing(blob.feed(first))
        async for piece in rest:
            listed += await self._put_missing(blob.feed(piece))
        listed += await self._put_missing(blob.finish())
        digest = Digest(blob.digest)
        await self.put_blob(digest, listed)
        return digest

    async def _put_missing(self, chunks: Sequence[CutChunk]) -> list[Chunk]:
        """Store the chunks that the server lacks. Return all of them, as they are listed."""
        contents = dict(chunks)

        async def put(chunk: bytes) -> None:
            digest = Digest(chunk)
            if not await self.has_chunk(digest):
                await self.put_chunk(digest, bytes(contents[chunk]))

        await each_at_once(put, list(contents))
        return [Chunk(Digest(chunk), len(content)) for chunk, content in chunks]

    async def _all(self, chunks: Sequence[Chunk]) -> AsyncGenerator[bytes, None]:
        """The contents of the chunks; those of a piece are fetched at once."""
        for group in filling(chunks, lambda chunk: chunk.size, size=MESSAGE):
            if len(group) == 1:
                async with aclosing(self.read_chunk(group[0])) as pieces:
                    async for piece in pieces:
                        yield piece
            else:
                for chunk, content in zip(group, await each_at_once(self.whole_chunk, group), strict=True):
                    if content is None:
                        server = self._connection.server
                        raise CorruptError(f"{server}: chunk {chunk.digest} has not {chunk.size} bytes, as the server says")
                    yield content

    async def _chunk(self, digest: Digest) -> AsyncGenerator[bytes, None]:
        """The bytes of a chunk, not verified."""
        receiving = self._connection.receive_batches(f"/{CHUNK_STORE_SERVICE}/GetChunk", encode_digest(digest), ("blob", digest))
        async with aclosing(receiving) as batches:
            async for batch in batches:
                with decoding(self._connection.server):
                    piece = joined_chunks(batch)
                yield piece

    async def _found(self, path: str, digest: Digest) -> bytes | None:
        try:
            return await self._connection.call(path, encode_digest(digest), ("blob", digest))
        except NotFoundError:
            return None
