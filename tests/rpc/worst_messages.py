"""The messages that take a server the longest. A body is a request's whole: its messages in their frames, one behind the other."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from functools import cache

import zstandard

from tvix_store.model import nixbase32, wire
from tvix_store.model.chunk_table import ChunkTable
from tvix_store.model.digest import EMPTY, Digest
from tvix_store.protocol.chunk_tables import ChunkList, encode_chunk_lists, encode_chunks, encode_sized_digests
from tvix_store.rpc.asgi import MAX_MESSAGE
from tvix_store.rpc.framing import frame
from tvix_store.services.granular import MAX_CHUNK
from tvix_store.testing.content import noise

_NODE = b"\x12\x20" + EMPTY.raw
"""Digest and size of an empty blob or directory in a node."""


def bodies(path: str, largest: int) -> Iterator[bytes]:
    """Bodies for the method at `path`, whose messages may have `largest` bytes. What only some methods read goes to one dialect."""
    yield from _for_every_method(largest)
    _, service, call = path.split("/")
    if service.startswith("tvix."):
        return
    match service.rpartition(".")[2], call:
        case "DirectoryService", "Put":
            yield frame(_symlinks(largest // 2))
            yield frame(b"") + frame(_children(largest))
        case "PathInfoService", "Put":
            yield frame(_path_info(40_000))
        case "BulkService", "PutMany":
            yield frame(b"\x0a\x01x" * 60_000)
            yield frame(b"\x0a\x00" * 600) * 300
        case "BulkService", ("Missing" | "GetMany" | "MissingDirectories" | "GetDirectories"):
            yield frame(b"".join(b"\x0a\x20" + noise(32, str(number)) for number in range(60_000)))
        case "BulkService", ("GetPathInfos" | "ExistingPaths"):
            yield frame(b"".join(b"\x0a\x14" + noise(20, str(number)) for number in range(16_000)))
        case "BulkService", "PutPathInfos":
            yield frame(wire.message_field(1, _path_info(40_000)))
            yield frame(wire.message_field(1, _path_info(10)) * 1_000)
        case "BulkService", "PutDirectories":
            yield frame(wire.message_field(1, _symlinks(largest // 2)))
            yield frame(wire.message_field(1, b"") + wire.message_field(1, _children(largest // 2)))
            yield frame(b"".join(wire.message_field(1, _symlink(b"%d" % number)) for number in range(60_000)))
        case "BulkService", ("ListChunks" | "GetChunks"):
            yield frame(encode_sized_digests(_table(60_000)))
            yield frame(encode_sized_digests(ChunkTable.of_sized([(EMPTY.raw, 0)] * 60_000)))
        case "BulkService", "PutChunks":
            chunks = [(Digest.of(content).raw, len(content), content) for content in (b"%d" % number for number in range(60_000))]
            yield frame(b"".join(encode_chunks(chunks)))
            zeros = [bytes(MAX_CHUNK - number) for number in range(4)]
            frames = [(Digest.of(each).raw, len(each), zstandard.compress(each)) for each in zeros]
            yield frame(b"".join(encode_chunks(frames)))
        case "BulkService", "Assemble":
            blob = Digest(bytes(32))
            yield frame(encode_chunk_lists([ChunkList(blob, _table(100_000), more=True)])) * 10
            yield frame(encode_chunk_lists([ChunkList(blob, _table(1))] * 30_000))
            yield frame(encode_chunk_lists([ChunkList(blob, _table(0), more=True)])) * 50_000
        case "BlobStoreService", "PutBlob":
            meta = b"".join(wire.message_field(2, b"\x0a\x20" + noise(32, str(number)) + b"\x10\x01") for number in range(100_000))
            yield frame(wire.message_field(1, bytes(32)) + wire.message_field(2, meta))
        case "ServerReflection", _:
            yield frame(wire.message_field(4, b"tvix.castore.v1.Directory")) * 20_000


def _table(chunks: int) -> ChunkTable:
    return ChunkTable.of_sized((noise(32, str(number)), 1000) for number in range(chunks))


@cache
def _for_every_method(largest: int) -> list[bytes]:
    return list(_generic(largest))


def _generic(largest: int) -> Iterator[bytes]:
    yield frame(b"\x0a\x01\x0a" * (largest // 3))  # a message in a field, in pieces
    yield frame(b"\x1a\x00\x2a\x00\x32\x00" * (largest // 6))
    yield frame(wire.message_field(1, b"\x0a\x00\x12\x00" * (largest // 4 - 2)))
    yield frame(wire.message_field(3, b"\x2a\x00\x32\x00" * (largest // 4 - 2)))
    yield frame(b"\x0a\x00" * (largest // 2))
    yield frame(b"\x78\x00" * (largest // 2))  # a field that no message has
    yield frame(b"\x12\x00" * (largest // 4) + wire.message_field(2, bytes(largest // 4)))
    yield frame(b"") * 50_000
    yield frame(b"\x0a\x01x") * 50_000
    yield frame(b"\x0a\x00" * (MAX_MESSAGE // 2 + 1))
    bomb = gzip.compress(bytes(MAX_MESSAGE), 9)
    yield (b"\1" + len(bomb).to_bytes(4) + bomb) * 10


def chain(depth: int) -> tuple[list[bytes], bytes]:
    """Directories, each in the next one, from the innermost on, and the node of the last."""
    digest, size, directories = EMPTY, 0, [b""]
    for _ in range(depth):
        directories.append(wire.message_field(1, b"\x0a\x01d" + _directory(digest, size)))
        digest, size = Digest.of(directories[-1]), size + 1
    return directories, wire.message_field(1, _directory(digest, size))


def _directory(digest: Digest, size: int) -> bytes:
    return b"\x12\x20" + digest.raw + wire.uint_field(3, size)


def _symlinks(size: int) -> bytes:
    return b"".join(_symlink(b"%07x" % number) for number in range(size // 14))


def _symlink(name: bytes) -> bytes:
    return wire.message_field(3, wire.message_field(1, name) + b"\x12\x01x")


def _children(size: int) -> bytes:
    return b"".join(wire.message_field(1, wire.message_field(1, b"%07x" % number) + _NODE) for number in range(size // 45))


def _path_info(references: int) -> bytes:
    hashes = [noise(20, str(number)) for number in range(references)]
    root = wire.message_field(2, wire.message_field(1, nixbase32.encode(bytes(20)).encode() + b"-a") + _NODE)
    names = b"".join(wire.message_field(4, nixbase32.encode(each).encode() + b"-a") for each in hashes)
    nar = wire.uint_field(1, 112) + wire.message_field(2, bytes(32)) + names
    return wire.message_field(1, root) + b"".join(wire.message_field(2, each) for each in hashes) + wire.message_field(3, nar)
