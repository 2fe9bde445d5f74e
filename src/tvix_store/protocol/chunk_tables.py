"""The messages of BulkService about chunks: tables by column, which are read in a few steps, however many chunks they have."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from tvix_store.errors import InvalidError
from tvix_store.model import wire
from tvix_store.model.chunk_table import ChunkTable
from tvix_store.model.digest import Digest

MAX_CHUNKS = 1 << 20
"""Chunks in the lists of one call: those of a blob of 64 GiB, if they have 64 KiB."""
MAX_LISTS = 64 * 1024
"""Lists in one message of ChunkLists."""
MAX_CONTENT = 16 << 20
"""Bytes of all chunks that a message Chunks brings: a MiB of frames may be gigabytes of zeros."""

_DATA = b"\x22"
"""The key of field 4, of bytes."""


@dataclass(frozen=True, slots=True)
class ChunkList:
    """A message ChunkList: the chunks of a blob, or some of them, if there are `more` in the next one.

    They may stand in a chunk that was put, `listed` by its digest and size: its content is the message with the chunks.
    """

    blob: Digest
    chunks: ChunkTable
    more: bool = False
    listed: tuple[Digest, int] | None = None


def encode_sized_digests(things: ChunkTable) -> bytes:
    """The message SizedDigests: blobs or chunks with their sizes."""
    return wire.bytes_field(1, things.digests) + wire.bytes_field(2, things.lengths)


def decode_sized_digests(message: bytes) -> ChunkTable:
    """The digests and sizes in a message SizedDigests, in order.

    Raises:
        InvalidError: the message is malformed, or has not a size for each digest.
    """
    return ChunkTable(*_columns(wire.few_fields(message), 2))


def encode_chunk_lists(lists: Iterable[ChunkList]) -> bytes:
    """The message ChunkLists."""
    return b"".join(wire.message_field(1, encode_chunk_list(each)) for each in lists)


def encode_chunk_list(chunks: ChunkList) -> bytes:
    """The message ChunkList."""
    message = (
        wire.bytes_field(1, chunks.blob.raw)
        + wire.bytes_field(2, chunks.chunks.digests)
        + wire.bytes_field(3, chunks.chunks.lengths)
        + wire.bytes_field(4, chunks.chunks.stored)
        + wire.uint_field(5, chunks.more)
    )
    if chunks.listed is None:
        return message
    digest, size = chunks.listed
    return message + wire.bytes_field(6, digest.raw) + wire.uint_field(7, size)


def decode_chunk_lists(message: bytes) -> list[ChunkList]:
    """The lists in a message ChunkLists, in order.

    Raises:
        InvalidError: the message is malformed, has more than MAX_LISTS lists, or the columns of one do not belong together.
    """
    found = wire.few_fields(message, MAX_LISTS)
    return [decode_chunk_list(wire.as_bytes(field, value)) for field, value in found if field == 1]


def encode_chunks(chunks: Sequence[tuple[bytes, int, bytes | memoryview]]) -> tuple[bytes, bytes]:
    """The message Chunks in two parts, of chunks as digest, length and what is stored."""
    data = b"".join(stored for _, _, stored in chunks)
    table = ChunkTable.of((digest, length, len(stored)) for digest, length, stored in chunks)
    head = wire.bytes_field(1, table.digests) + wire.bytes_field(2, table.lengths) + wire.bytes_field(3, table.stored)
    return (head + _DATA + wire.varint(len(data)), data) if data else (head, b"")


def decode_chunks(message: bytes) -> list[tuple[bytes, int, memoryview]]:
    """The chunks in a message Chunks, as digest, length and what is stored, in order.

    Raises:
        InvalidError: the message is malformed, its columns do not belong together, or the chunks have more than MAX_CONTENT bytes.
    """
    digests, lengths, stored, data = _columns(wire.few_fields(message), 4)
    table = ChunkTable(digests, lengths, stored)
    if len(table) > MAX_LISTS:
        raise InvalidError(f"{len(table)} chunks were sent in one message, of at most {MAX_LISTS}")
    if table.size > MAX_CONTENT:
        raise InvalidError(f"chunks of {table.size} bytes were sent in one message, of at most {MAX_CONTENT}")
    rows = list(table)
    ends = list(accumulate((kept for _, _, kept in rows), initial=0))
    if ends[-1] != len(data):
        raise InvalidError(f"{len(data)} bytes of chunks were sent, but {ends[-1]} were announced")
    view = memoryview(data)
    return [(digest, length, view[start:end]) for (digest, length, _), (start, end) in zip(rows, pairwise(ends), strict=True)]


def encode_get_chunk(digest: Digest, length: int) -> bytes:
    """The message GetChunkRequest."""
    return wire.bytes_field(1, digest.raw) + wire.uint_field(2, length)


def decode_get_chunk(message: bytes) -> tuple[Digest, int]:
    """The digest and the length of the chunk.

    Raises:
        InvalidError: the message is malformed, or the digest is not 32 bytes.
    """
    digest, length = b"", 0
    for field, value in wire.few_fields(message):
        match field:
            case 1:
                digest = wire.as_bytes(field, value)
            case 2:
                length = wire.as_uint(field, value)
            case _:
                pass
    return Digest(digest), length


def decode_chunk_list(message: bytes) -> ChunkList:
    """Read a message ChunkList.

    Raises:
        InvalidError: it is malformed, or its columns do not belong together.
    """
    fields = wire.few_fields(message)
    blob, digests, lengths, stored = _columns(fields, 4)
    more = size = 0
    listed = b""
    for field, value in fields:
        match field:
            case 5:
                more = wire.as_uint(field, value)
            case 6:
                listed = wire.as_bytes(field, value)
            case 7:
                size = wire.as_uint(field, value)
            case _:
                pass
    elsewhere = (Digest(listed), size) if listed else None
    return ChunkList(Digest(blob), ChunkTable(digests, lengths, stored), bool(more), elsewhere)


def _columns(fields: Sequence[tuple[int, int | bytes | None]], count: int) -> list[bytes]:
    """The bytes of the fields 1 to `count`. A column of numbers may come in pieces, as protobuf has it."""
    found = dict(fields)
    if len(found) == len(fields):
        return [wire.as_bytes(field, found.get(field, b"")) for field in range(1, count + 1)]
    pieces: list[list[bytes]] = [[] for _ in range(count)]
    for field, value in fields:
        if field <= count:
            wire.gather(pieces[field - 1], wire.as_bytes(field, value), f"field {field}")
    return [each[0] if len(each) == 1 else b"".join(each) for each in pieces]
