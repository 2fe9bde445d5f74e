"""The messages of BlobService, and those of one digest that other services use too."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tvix_store.model import wire
from tvix_store.model.digest import Digest
from tvix_store.protocol.dialects import Dialect

_DIGEST = b"\x0a\x20"
"""Key and length of a digest in field 1."""
_LONE_FILE = b"tvix-store-lone-file"
"""Metadata of our own that may come with a Put of a file that is to be a whole store path.

It has the size of the file, and whether the file is executable: with these, the server knows the beginning of the NAR. A server
that does not know the metadata stores the blob all the same."""
_EXECUTABLE = " executable"
_DIGITS = len(str(wire.MAX_UINT64))


def encode_digest(digest: Digest) -> bytes:
    """A message whose field 1 is a digest: ReadBlobRequest, PutBlobResponse, PutDirectoryResponse."""
    return _DIGEST + digest.raw


def decode_digest(message: bytes) -> Digest:
    """The digest in field 1 of `message`; other fields are ignored.

    Raises:
        InvalidError: the message is malformed, or its digest is not 32 bytes.
    """
    if len(message) == 34 and message.startswith(_DIGEST):
        return Digest(message[2:])
    digest = b""
    for field, value in wire.few_fields(message):
        if field == 1:
            digest = wire.as_bytes(field, value)
    return Digest(digest)


def chunk_header(size: int) -> bytes:
    """The bytes before `size` bytes of data that make them a BlobChunk."""
    return b"\x0a" + wire.varint(size) if size else b""


def encode_chunk(data: bytes) -> bytes:
    """The message BlobChunk."""
    return chunk_header(len(data)) + data


def decode_chunk(message: bytes) -> bytes:
    """The data of a BlobChunk.

    Raises:
        InvalidError: the message is malformed.
    """
    if message.startswith(b"\x0a"):
        size, start = wire.read_varint(message, 1)
        if start + size == len(message):
            return message[start:]
    data = b""
    for field, value in wire.few_fields(message):
        if field == 1:
            data = wire.as_bytes(field, value)
    return data


def encode_lone_file(size: int, *, executable: bool) -> Sequence[tuple[str, str]]:
    """The metadata of a Put of a file of `size` bytes that is all of a store path."""
    return ((_LONE_FILE.decode(), f"{size}{_EXECUTABLE if executable else ''}"),)


def decode_lone_file(headers: Iterable[tuple[bytes, bytes]]) -> tuple[int, bool] | None:
    """Size and executable bit of the file that comes with a Put, if the metadata tells them, and well."""
    value = next((value for name, value in headers if name == _LONE_FILE), b"").decode(errors="replace")
    size = value.removesuffix(_EXECUTABLE)
    if not (size.isascii() and size.isdigit() and len(size) < _DIGITS):
        return None
    return int(size), size != value


def encode_stat_request(digest: Digest, *, chunks: bool) -> bytes:
    """The message StatBlobRequest."""
    return encode_digest(digest) + wire.uint_field(2, chunks)


def decode_stat_request(message: bytes) -> tuple[Digest, bool]:
    """The digest, and whether the chunks are asked for.

    Raises:
        InvalidError: the message is malformed, or its digest is not 32 bytes.
    """
    digest, chunks = b"", False
    for field, value in wire.few_fields(message):
        match field:
            case 1:
                digest = wire.as_bytes(field, value)
            case 2:
                chunks = bool(wire.as_uint(field, value))
            case _:
                pass
    return Digest(digest), chunks


def encode_stat(dialect: Dialect, chunks: Iterable[tuple[Digest, int]]) -> bytes:
    """The answer to Stat: the digest and size of each chunk, in order."""
    return b"".join(
        wire.message_field(dialect.chunks_field, encode_digest(digest) + wire.uint_field(2, size)) for digest, size in chunks
    )


def decode_stat(dialect: Dialect, message: bytes) -> list[tuple[Digest, int]]:
    """The chunks in an answer to Stat.

    Raises:
        InvalidError: the message is malformed, or a digest in it is not 32 bytes.
    """
    return [
        _decode_chunk_meta(wire.as_bytes(field, value)) for field, value in wire.fields(message) if field == dialect.chunks_field
    ]


def _decode_chunk_meta(message: bytes) -> tuple[Digest, int]:
    digest, size = b"", 0
    for field, value in wire.few_fields(message):
        match field:
            case 1:
                digest = wire.as_bytes(field, value)
            case 2:
                size = wire.as_uint(field, value)
            case _:
                pass
    return Digest(digest), size
