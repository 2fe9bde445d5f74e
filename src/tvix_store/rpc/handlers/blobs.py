"""BlobService, in a dialect."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from functools import partial
from typing import TypeAlias

from tvix_store.errors import ExhaustedError, NotFoundError
from tvix_store.model.digest import Digest
from tvix_store.operations.ingest.lone_file import put_lone_file
from tvix_store.protocol.blobs import (
    chunk_header,
    decode_chunk,
    decode_digest,
    decode_lone_file,
    decode_stat_request,
    encode_chunk,
    encode_digest,
    encode_stat,
)
from tvix_store.protocol.dialects import Dialect
from tvix_store.rpc.method import Answer, Call, Method, ServerStreaming, Takes, Unary, client_streaming
from tvix_store.services import BlobService, KnownNars

ChunkList: TypeAlias = Sequence[tuple[Digest, int]]
"""The digest and size (bytes) of each chunk."""
_ENCODED_HERE = 4096
"""Chunks of a list that is encoded on the event loop, in some 3 ms."""


def blob_methods(blobs: BlobService, known_nars: KnownNars | None, dialect: Dialect, max_message: int) -> dict[str, Method]:
    """The calls of a dialect's BlobService by path. `max_message` bounds in bytes a piece of a Put, and the answer of the unary
    Get.

    `known_nars` get to know of lone files.
    """

    async def stat(message: bytes, _call: Call) -> bytes:
        digest, chunks = decode_stat_request(message)
        found = await blobs.stat(digest, chunks=chunks)
        if found is None:
            raise NotFoundError("blob", digest)
        return await encoded_list(partial(encode_stat, dialect), [(chunk.digest, chunk.size) for chunk in found.chunks])

    async def read(message: bytes, _call: Call) -> AsyncGenerator[Answer, None]:
        async for piece in blobs.read(decode_digest(message)):
            yield chunk_header(len(piece)), piece

    async def put(messages: AsyncIterator[bytes], call: Call) -> bytes:
        file = decode_lone_file(call.headers) if known_nars is not None else None
        if file is None or known_nars is None:
            return encode_digest(await blobs.put(_data(messages)))
        size, executable = file
        return encode_digest(await put_lone_file(blobs, known_nars, _data(messages), size, executable=executable))

    async def get(message: bytes, _call: Call) -> bytes:
        digest = decode_digest(message)
        pieces: list[bytes] = []
        size = 0
        async for piece in blobs.read(digest, 0, max_message + 1):
            size += len(piece)
            if size > max_message:
                raise ExhaustedError(f"blob {digest} is over the limit of {max_message} bytes a message; use Read")
            pieces.append(piece)
        return encode_chunk(b"".join(pieces))

    methods: dict[str, Method] = {
        dialect.blob("Stat"): Unary(stat),
        dialect.blob("Read"): ServerStreaming(read),
        dialect.blob("Put"): client_streaming(put, Takes(max_message=max_message, writes=True)),
    }
    if dialect.whole_blobs:
        methods[dialect.blob("Get")] = Unary(get, Takes(immutable=True))
    return methods


async def encoded_list(encode: Callable[[ChunkList], bytes], chunks: ChunkList) -> bytes:
    """The message that `encode` makes of a list of chunks, in a thread if it is long."""
    return encode(chunks) if len(chunks) <= _ENCODED_HERE else await asyncio.to_thread(encode, chunks)


async def _data(messages: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    async for message in messages:
        # Not by `Takes.decode`: it takes a few steps, however large the message, and a hop to a thread would be longer.
        data = decode_chunk(message)
        if data:  # a store gathers small pieces, and of empty ones there may be millions
            yield data
