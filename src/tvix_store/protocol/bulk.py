"""The messages of BulkService: many small blobs in one call."""

from __future__ import annotations

from collections.abc import Iterable

from tvix_store.model import wire
from tvix_store.model.digest import Digest

MAX_BLOBS = 64 * 1024
"""Blobs or digests in one message: a client of ours sends at most a quarter of them."""


def encode_blobs(blobs: Iterable[bytes]) -> bytes:
    """The message Blobs."""
    return b"".join(wire.message_field(1, blob) for blob in blobs)


def decode_blobs(message: bytes) -> list[bytes]:
    """The blobs in a message Blobs, in order.

    Raises:
        InvalidError: the message is malformed, or has more than MAX_BLOBS.
    """
    return [wire.as_bytes(field, value) for field, value in wire.few_fields(message, MAX_BLOBS) if field == 1]


def encode_digests(digests: Iterable[Digest]) -> bytes:
    """The message Digests."""
    return b"".join(b"\x0a\x20" + digest.raw for digest in digests)


def decode_digests(message: bytes) -> list[Digest]:
    """The digests in a message Digests, in order.

    Raises:
        InvalidError: the message is malformed, has more than MAX_BLOBS, or one is not 32 bytes.
    """
    return [Digest(wire.as_bytes(field, value)) for field, value in wire.few_fields(message, MAX_BLOBS) if field == 1]
