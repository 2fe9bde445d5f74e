"""The values of a near store: what is written under a key, and how it is checked when it is read."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from struct import Struct
from typing import NamedTuple

import zstandard
from blake3 import blake3

from tvix_store.compression.chunk_frames import chunk_content, compressed_chunks
from tvix_store.errors import InvalidError
from tvix_store.layers.cache.near import Value
from tvix_store.model.chunk_table import ChunkTable
from tvix_store.model.digest import Digest
from tvix_store.model.directory import Directory
from tvix_store.services.granular import StoredChunk

CHUNK, LIST, DIRECTORY = b"c", b"l", b"d"
"""The kinds of keys. A digest of 32 bytes follows. A small blob is a chunk too, also where the far store has cut it."""
_CHUNK = Struct("<?Q")
_TABLE = Struct("<I??")
_CHECK = 16
"""Bytes of the checksum before a list."""
_ROW = 40
"""Bytes of a chunk in a list, without its stored length."""


_of_thread = threading.local()


class KeptChunk(NamedTuple):
    """A chunk of a near store.

    is_exact: Whether `stored` has the bytes that the far store keeps. Otherwise it may be compressed in another way.
    content: The chunk itself, which was checked.
    """

    is_exact: bool
    stored: bytes | memoryview
    content: bytes


class KeptList(NamedTuple):
    """The chunks of a blob, in a near store.

    is_checked: Whether all of them were read, and are the blob. Otherwise that is far's word.
    """

    table: ChunkTable
    is_checked: bool


def write_chunk(length: int, stored: bytes | memoryview, *, is_exact: bool) -> bytes:
    """A chunk of `length` bytes: one zstd frame if `stored` is shorter, or the chunk itself."""
    return _CHUNK.pack(is_exact, length) + stored


def read_chunk(digest: bytes, value: Value) -> KeptChunk | None:
    """The chunk, or None where it is damaged. Takes as long as decompressing it."""
    if len(value) < _CHUNK.size:
        return None
    is_exact, length = _CHUNK.unpack_from(value)
    stored = memoryview(value)[_CHUNK.size :]
    try:
        content = bytes(chunk_content(stored, length, _decompressor()))
    except InvalidError:
        return None
    return KeptChunk(is_exact, stored, content) if blake3(content).digest() == digest else None


def exact_stored(value: Value) -> memoryview | None:
    """The bytes that the far store keeps of a chunk, which are not checked; None where the value has others."""
    if len(value) < _CHUNK.size or not _CHUNK.unpack_from(value)[0]:
        return None
    return memoryview(value)[_CHUNK.size :]


def chunk_of_stored(digest: bytes, stored: bytes) -> bytes | None:
    """The value of a chunk of which the far store keeps `stored`; None where that is not the chunk."""
    length = len(stored)
    if blake3(stored).digest() != digest:
        try:
            length = zstandard.get_frame_parameters(stored).content_size
        except zstandard.ZstdError:
            return None
    value = write_chunk(length, stored, is_exact=True)
    return None if read_chunk(digest, value) is None else value


def smaller(values: dict[bytes, bytes]) -> dict[bytes, bytes]:
    """The same values, where chunks that are not compressed, and need not be as the far store has them, may be."""
    plain: list[tuple[bytes, int, bytes | memoryview]] = []
    for key, value in values.items():
        if key.startswith(CHUNK):
            is_exact, length = _CHUNK.unpack_from(value)
            if not is_exact and len(value) == _CHUNK.size + length:
                plain.append((key, length, memoryview(value)[_CHUNK.size :]))
    if not plain:
        return values
    return values | {
        key: write_chunk(length, stored, is_exact=False) for key, length, stored in compressed_chunks(plain) if len(stored) < length
    }


def write_list(digest: bytes, table: ChunkTable, *, is_checked: bool = False) -> bytes:
    """The chunks of a blob."""
    head = _TABLE.pack(len(table), bool(table.stored), is_checked)
    body = table.digests + table.lengths + table.stored
    return _check(digest, head + body) + head + body


def read_list(digest: bytes, value: Value) -> KeptList | None:
    """The chunks of a blob, or None where the list is damaged."""
    if len(value) < _CHECK + _TABLE.size:
        return None
    check, rest = bytes(value[:_CHECK]), bytes(value[_CHECK:])
    count, has_stored, is_checked = _TABLE.unpack_from(rest)
    body = rest[_TABLE.size :]
    if check != _check(digest, rest) or len(body) != count * (_ROW + 8 * has_stored):
        return None
    return KeptList(ChunkTable(body[: 32 * count], body[32 * count : _ROW * count], body[_ROW * count :]), is_checked)


def read_list_with_stored(digest: bytes, value: Value) -> ChunkTable | None:
    """As `read_list`; None also where it is not known how much is stored of each chunk."""
    kept = read_list(digest, value)
    return kept.table if kept is not None and (kept.table.stored or not len(kept.table)) else None


def read_directory(digest: bytes, value: Value) -> Directory | None:
    """A directory from its canonical encoding, or None where that is damaged."""
    return Directory.stored(Digest(digest), bytes(value)) if blake3(value).digest() == digest else None


def of_stored_chunks(chunks: Iterable[StoredChunk], *, is_exact: bool) -> dict[bytes, bytes]:
    """Keys and values of chunks."""
    return {CHUNK + each.digest: write_chunk(each.length, each.stored, is_exact=is_exact) for each in chunks}


def of_contents(contents: Iterable[tuple[Digest, bytes]]) -> dict[bytes, bytes]:
    """Keys and values of small blobs."""
    return {CHUNK + digest.raw: write_chunk(len(content), content, is_exact=False) for digest, content in contents}


def of_directories(directories: Iterable[Directory]) -> dict[bytes, bytes]:
    """Keys and values of directories."""
    return {DIRECTORY + each.digest.raw: each.encoded for each in directories}


def _decompressor() -> zstandard.ZstdDecompressor:
    """One for each thread: to make one takes longer than to decompress a small chunk."""
    made: zstandard.ZstdDecompressor | None = getattr(_of_thread, "decompressor", None)
    if made is None:
        made = _of_thread.decompressor = zstandard.ZstdDecompressor()
    return made


def _check(digest: bytes, body: bytes) -> bytes:
    return blake3(digest + body).digest(length=_CHECK)
