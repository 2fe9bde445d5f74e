"""The messages of snix's BlobStoreService, beside those of one digest or of data, which are those of BlobService."""

from __future__ import annotations

from collections.abc import Iterable

from tvix_store.model import wire
from tvix_store.model.digest import Digest
from tvix_store.protocol.blobs import decode_stat, encode_stat
from tvix_store.protocol.dialects import SNIX


def encode_blob_meta(chunks: Iterable[tuple[Digest, int]]) -> bytes:
    """The message GetBlobResponse: the digest and size of each chunk, in order. A BlobMeta is encoded like an answer to Stat."""
    return wire.message_field(1, encode_stat(SNIX, chunks))


def decode_blob_meta(message: bytes) -> list[tuple[Digest, int]]:
    """The chunks in a GetBlobResponse.

    Raises:
        InvalidError: the message is malformed, or a digest in it is not 32 bytes.
    """
    parts = [wire.as_bytes(field, value) for field, value in wire.fields(message) if field == 1]
    return decode_stat(SNIX, b"".join(parts))


def encode_put_blob(digest: Digest, chunks: Iterable[tuple[Digest, int]]) -> bytes:
    """The message PutBlobRequest."""
    return wire.message_field(1, digest.raw) + wire.message_field(2, encode_stat(SNIX, chunks))


def decode_put_blob(message: bytes) -> tuple[Digest, list[tuple[Digest, int]]]:
    """The digest of the blob, and the digest and size of each of its chunks, in order.

    Raises:
        InvalidError: the message is malformed, or a digest in it is not 32 bytes.
    """
    digest = b""
    parts: list[bytes] = []
    for field, value in wire.few_fields(message):
        match field:
            case 1:
                digest = wire.as_bytes(field, value)
            case 2:
                wire.gather(parts, wire.as_bytes(field, value), "blob_meta")
            case _:
                pass
    return Digest(digest), decode_stat(SNIX, b"".join(parts))
