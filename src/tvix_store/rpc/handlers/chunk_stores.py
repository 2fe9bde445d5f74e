"""ChunkStoreService and BlobStoreService of snix: chunks alone, and blobs as lists of them.

A chunk is stored as a blob of its own, and every blob of at most MAX_CHUNK may be named as a chunk.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator

from tvix_store.errors import ExhaustedError, NotFoundError
from tvix_store.model.digest import Digest
from tvix_store.operations.granular.assemble_blob import assemble_blob
from tvix_store.operations.trees.resolve import blob_size
from tvix_store.protocol.blobs import chunk_header, decode_chunk, decode_digest, encode_digest
from tvix_store.protocol.chunk_stores import decode_put_blob, encode_blob_meta
from tvix_store.protocol.dialects import BLOB_STORE_SERVICE, CHUNK_STORE_SERVICE
from tvix_store.rpc.handlers.blobs import encoded_list
from tvix_store.rpc.method import Answer, Call, Method, ServerStreaming, Takes, Unary, client_streaming
from tvix_store.services.assembling import Assembling
from tvix_store.services.blobs import BlobService, Chunk
from tvix_store.services.granular import MAX_CHUNK

_AROUND = 16
"""Bytes around the data of a chunk in a message."""
_LIST = 4 << 20
"""Bytes of the largest list of chunks that is put: 110,000 chunks. A larger blob goes by BlobService."""


def chunk_store_methods(blobs: BlobService, assembling: Assembling | None) -> dict[str, Method]:
    """The calls of both services by path."""

    async def stat(message: bytes, _call: Call) -> bytes:
        digest = decode_digest(message)
        if await blobs.stat(digest) is None:
            raise NotFoundError("blob", digest)
        return b""

    async def get_chunk(message: bytes, _call: Call) -> AsyncGenerator[Answer, None]:
        async for piece in blobs.read(decode_digest(message)):
            yield chunk_header(len(piece)), piece

    async def put_chunk(messages: AsyncIterator[bytes], _call: Call) -> bytes:
        return encode_digest(await blobs.put(_bounded(messages)))

    async def get_blob(message: bytes, _call: Call) -> bytes:
        digest = decode_digest(message)
        found = await blobs.stat(digest, chunks=True)
        if found is None:
            raise NotFoundError("blob", digest)
        if found.chunks:
            chunks = [(chunk.digest, chunk.size) for chunk in found.chunks]
        else:
            size = await blob_size(blobs, digest) if found.size is None else found.size
            chunks = [(digest, size)] if size else []
        return await encoded_list(encode_blob_meta, chunks)

    async def put_blob(wanted: tuple[Digest, list[tuple[Digest, int]]], _call: Call) -> bytes:
        digest, chunks = wanted
        await assemble_blob(blobs, assembling, digest, [Chunk(*chunk) for chunk in chunks])
        return b""

    return {
        f"/{CHUNK_STORE_SERVICE}/StatChunk": Unary(stat),
        f"/{CHUNK_STORE_SERVICE}/GetChunk": ServerStreaming(get_chunk),
        f"/{CHUNK_STORE_SERVICE}/PutChunk": client_streaming(put_chunk, Takes(max_message=MAX_CHUNK + _AROUND, writes=True)),
        f"/{BLOB_STORE_SERVICE}/StatBlob": Unary(stat),
        f"/{BLOB_STORE_SERVICE}/GetBlob": Unary(get_blob),
        f"/{BLOB_STORE_SERVICE}/PutBlob": Unary(put_blob, Takes(max_message=_LIST, decode=decode_put_blob, writes=True)),
    }


async def _bounded(messages: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    size = 0
    async for message in messages:
        data = decode_chunk(message)
        size += len(data)
        if size > MAX_CHUNK:
            raise ExhaustedError(f"a chunk has at most {MAX_CHUNK} bytes; put a larger blob in several, or by BlobService")
        if data:  # a store gathers small pieces, and of empty ones there may be millions
            yield data
