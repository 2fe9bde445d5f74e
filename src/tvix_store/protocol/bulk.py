"""The messages of BulkService: many small blobs in one call."""

from __future__ import annotations

from collections.abc import Iterable

from tvix_store.model import wire
from tvix_store.model.digest import Digest


def encode_blobs(blobs: Iterable[bytes]) -> bytes:
    """The message Blobs."""
    return b"".join(wire.message_field(1, blob) for blob in blobs)


def decode_blobs(message: bytes) -> list[bytes]:
    """The blobs in a message Blobs, in order.

    Raises:
        InvalidError: the message is malformed.
    """
    return [wire.as_bytes(field, value) for field, value in wire.fields(message) if field == 1]


def encode_digests(digests: Iterable[Digest]) -> bytes:
    """The message Digests."""
    return b"".join(b"\x0a\x20" + digest.raw for digest in digests)


def decode_digests(message: bytes) -> list[Digest]:
    """The digests in a message Digests, in order.

    Raises:
        InvalidError: the message is malformed, or one is not 32 bytes.
    """
    return [Digest(wire.as_bytes(field, value)) for field, value in wire.fields(message) if field == 1]
