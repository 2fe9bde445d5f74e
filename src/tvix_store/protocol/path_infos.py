"""The messages of PathInfoService beside PathInfo itself, which is encoded by the model."""

from __future__ import annotations

from tvix_store.errors import InvalidError
from tvix_store.model import wire
from tvix_store.model.path_info import NarFacts
from tvix_store.model.store_path import OUTPUT_HASH_SIZE

_OUTPUT_HASH = b"\x0a\x14"
"""Key and length of an output hash in field 1."""


def encode_get_path_info(output_hash: bytes) -> bytes:
    """The message GetPathInfoRequest, for an output hash of 20 bytes."""
    return _OUTPUT_HASH + output_hash


def decode_get_path_info(message: bytes) -> bytes:
    """The output hash asked for: 20 bytes.

    Raises:
        InvalidError: the message is malformed, asks for nothing, or its output hash is not 20 bytes.
    """
    if len(message) == 22 and message.startswith(_OUTPUT_HASH):
        return message[2:]
    output_hash: bytes | None = None
    for field, value in wire.few_fields(message):
        if field == 1:
            output_hash = wire.as_bytes(field, value)
    if output_hash is None:
        raise InvalidError("by_what is missing: set by_output_hash")
    if len(output_hash) != OUTPUT_HASH_SIZE:
        raise InvalidError(f"by_output_hash must be {OUTPUT_HASH_SIZE} bytes, got {len(output_hash)}")
    return output_hash


def encode_nar_facts(facts: NarFacts) -> bytes:
    """The message CalculateNARResponse."""
    return wire.uint_field(1, facts.size) + wire.bytes_field(2, facts.sha256)


def decode_nar_facts(message: bytes) -> NarFacts:
    """The size and hash in a CalculateNARResponse.

    Raises:
        InvalidError: the message is malformed, or the hash is not 32 bytes.
    """
    size, sha256 = 0, b""
    for field, value in wire.few_fields(message):
        match field:
            case 1:
                size = wire.as_uint(field, value)
            case 2:
                sha256 = wire.as_bytes(field, value)
            case _:
                pass
    return NarFacts(size, sha256)
