"""The messages of NarService. NarPart is a BlobChunk by another name."""

from __future__ import annotations

from tvix_store.model import wire
from tvix_store.model.nodes import Node, decode_node, encode_node
from tvix_store.model.path_info import NarFacts


def encode_stored_nar(node: Node, facts: NarFacts) -> bytes:
    """The message StoredNar."""
    return wire.message_field(1, encode_node(b"", node)) + wire.uint_field(2, facts.size) + wire.bytes_field(3, facts.sha256)


def decode_stored_nar(message: bytes) -> tuple[Node, NarFacts]:
    """The root node, and what is true of the NAR, in a StoredNar.

    Raises:
        InvalidError: the message is malformed, has no node, or the hash is not 32 bytes.
    """
    node, size, sha256 = b"", 0, b""
    for field, value in wire.fields(message):
        match field:
            case 1:
                node = wire.as_bytes(field, value)
            case 2:
                size = wire.as_uint(field, value)
            case 3:
                sha256 = wire.as_bytes(field, value)
            case _:
                pass
    return decode_node(node)[1], NarFacts(size, sha256)
