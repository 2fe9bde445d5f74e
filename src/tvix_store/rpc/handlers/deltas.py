"""BulkService, deltas."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator

from tvix_store.compression.delta import MAX_FRAME
from tvix_store.errors import ExhaustedError, InvalidError
from tvix_store.protocol.deltas import DeltaRequest, decode_delta_piece, decode_delta_request, encode_delta_piece
from tvix_store.protocol.dialects import BULK_SERVICE
from tvix_store.rpc.method import Call, Method, ServerStreaming, Takes, client_streaming
from tvix_store.services.blobs import Chunk
from tvix_store.services.deltas import Deltas
from tvix_store.traffic import SMALL, Budget

_PIECE = 1 << 20
"""Bytes of a delta in a message of an answer."""
_KEPT = 96 << 20
"""Bytes of deltas that a worker keeps: made deltas while clients take them, and sent deltas until their end has come."""


def delta_methods(deltas: Deltas) -> dict[str, Method]:
    """The calls by path."""
    kept = Budget(_KEPT)

    async def make_delta(message: bytes, call: Call) -> AsyncGenerator[bytes, None]:
        request = decode_delta_request(message)
        delta = await deltas.make(request.base, Chunk(request.target, request.size), request.most)
        if delta is None:
            return
        with kept.place(call.client) as place:
            if len(delta) > SMALL:
                await place.hold(len(delta))
            for at in range(0, len(delta), _PIECE):
                place.waits()
                yield encode_delta_piece(memoryview(delta)[at : at + _PIECE])
                place.works()

    async def apply_delta(messages: AsyncIterator[bytes], call: Call) -> bytes:
        request: DeltaRequest | None = None
        delta = bytearray()
        with kept.place(call.client) as place:
            async for message in messages:
                place.works()
                head, data = decode_delta_piece(message)
                request = request or head
                if request is None or not data:
                    raise InvalidError("a message of a delta is empty, or the first one does not say which delta it is")
                if len(delta) + len(data) > MAX_FRAME:
                    raise ExhaustedError(f"a delta has at most {MAX_FRAME} bytes; send chunks")
                delta += data
                if len(delta) > SMALL:
                    await place.hold(len(delta))
                place.waits()
            if request is None:
                raise InvalidError("no delta was sent")
            place.works()
            await deltas.apply(request.base, Chunk(request.target, request.size), bytes(delta))
        return b""

    return {
        f"/{BULK_SERVICE}/MakeDelta": ServerStreaming(make_delta),
        f"/{BULK_SERVICE}/ApplyDelta": client_streaming(apply_delta, Takes(max_message=_PIECE + SMALL, writes=True)),
    }
