"""BulkService, small blobs: many in one call."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator

from tvix_store.errors import ExhaustedError
from tvix_store.model.digest import Digest
from tvix_store.protocol.bulk import MAX_BLOBS, decode_blobs, decode_digests, encode_blobs, encode_digests
from tvix_store.protocol.dialects import BULK_SERVICE
from tvix_store.rpc.method import Call, Method, ServerStreaming, Takes, Unary, client_streaming
from tvix_store.services.blobs import SMALL_BLOB, BlobService, get_all
from tvix_store.services.read_ahead import READ_AHEAD

_MESSAGE = 1024 * 1024
"""Bytes of blobs that fill an answer's message."""
_AT_ONCE = 16 * _MESSAGE // SMALL_BLOB
"""Blobs fetched at once: 16 MiB of them, if each is as large as may be."""
_ENCODED_DIGEST = 34
"""Bytes of a digest in the message Digests."""


def bulk_methods(blobs: BlobService, max_message: int) -> dict[str, Method]:
    """The calls by path. `max_message` bounds a message of blobs in bytes. PutMany takes, and so answers, at most
    MAX_BLOBS in all; Missing answers no more than it was asked.
    """

    async def put_many(messages: AsyncIterator[list[bytes]], _call: Call) -> bytes:
        digests: list[Digest] = []
        async for many in messages:
            if len(digests) + len(many) > MAX_BLOBS:
                raise ExhaustedError(f"a call takes at most {MAX_BLOBS} blobs; put the rest in another call")
            digests += await blobs.put_many(many)
        return encode_digests(digests)

    async def get_many(digests: list[Digest], _call: Call) -> AsyncGenerator[bytes, None]:
        batch: list[bytes] = []
        size = 0
        with READ_AHEAD.room(_AT_ONCE * SMALL_BLOB) as has_room:
            at_once = _AT_ONCE if has_room else _AT_ONCE // 16
            for start in range(0, len(digests), at_once):
                for blob in await get_all(blobs, digests[start : start + at_once]):
                    if batch and size + len(blob) > _MESSAGE:
                        yield encode_blobs(batch)
                        batch, size = [], 0
                    batch.append(blob)
                    size += len(blob)
        if batch:
            yield encode_blobs(batch)

    async def missing(digests: list[Digest], _call: Call) -> bytes:
        return encode_digests(await blobs.missing(digests))

    many_digests = Takes(max_message=MAX_BLOBS * _ENCODED_DIGEST, decode=decode_digests)
    return {
        f"/{BULK_SERVICE}/PutMany": client_streaming(put_many, Takes(max_message=max_message, decode=decode_blobs, writes=True)),
        f"/{BULK_SERVICE}/GetMany": ServerStreaming(get_many, many_digests),
        f"/{BULK_SERVICE}/Missing": Unary(missing, many_digests),
    }
