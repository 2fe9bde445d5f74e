"""The request of DirectoryService's Get. Directories themselves are encoded by the model."""

from __future__ import annotations

from tvix_store.errors import InvalidError
from tvix_store.model import wire
from tvix_store.model.digest import Digest


def encode_get_directory(digest: Digest, *, recursive: bool) -> bytes:
    """The message GetDirectoryRequest."""
    return wire.message_field(1, digest.raw) + wire.uint_field(2, recursive)


def decode_get_directory(message: bytes) -> tuple[Digest, bool]:
    """The digest, and whether all directories below are asked for too.

    Raises:
        InvalidError: the message is malformed, asks for nothing, or its digest is not 32 bytes.
    """
    digest: bytes | None = None
    recursive = False
    for field, value in wire.few_fields(message):
        match field:
            case 1:
                digest = wire.as_bytes(field, value)
            case 2:
                recursive = bool(wire.as_uint(field, value))
            case _:
                pass
    if digest is None:
        raise InvalidError("by_what is missing: set digest")
    return Digest(digest), recursive
