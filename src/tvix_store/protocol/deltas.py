"""The messages of BulkService that are about deltas."""

from __future__ import annotations

from typing import NamedTuple

from tvix_store.model import wire
from tvix_store.model.digest import Digest


class DeltaRequest(NamedTuple):
    """The message Delta: which blob, of `size` bytes, is made of which other one; a delta may have `most` bytes."""

    base: Digest
    target: Digest
    size: int
    most: int = 0


def encode_delta_request(request: DeltaRequest) -> bytes:
    """The message Delta."""
    return (
        wire.bytes_field(1, request.base.raw)
        + wire.bytes_field(2, request.target.raw)
        + wire.uint_field(3, request.size)
        + wire.uint_field(4, request.most)
    )


def decode_delta_request(message: bytes) -> DeltaRequest:
    """Read a message Delta.

    Raises:
        InvalidError: it is malformed, or a digest is not 32 bytes.
    """
    base = target = b""
    size = most = 0
    for field, value in wire.few_fields(message):
        match field:
            case 1:
                base = wire.as_bytes(field, value)
            case 2:
                target = wire.as_bytes(field, value)
            case 3:
                size = wire.as_uint(field, value)
            case 4:
                most = wire.as_uint(field, value)
            case _:
                pass
    return DeltaRequest(Digest(base), Digest(target), size, most)


def encode_delta_piece(data: bytes | memoryview, request: DeltaRequest | None = None) -> bytes:
    """The message DeltaPiece; the first one that is sent has the request."""
    head = b"" if request is None else wire.message_field(1, encode_delta_request(request))
    return head + wire.bytes_field(2, bytes(data))


def decode_delta_piece(message: bytes) -> tuple[DeltaRequest | None, bytes]:
    """Read a message DeltaPiece.

    Raises:
        InvalidError: it is malformed.
    """
    request: DeltaRequest | None = None
    data = b""
    for field, value in wire.few_fields(message):
        match field:
            case 1:
                request = decode_delta_request(wire.as_bytes(field, value))
            case 2:
                data = wire.as_bytes(field, value)
            case _:
                pass
    return request, data
