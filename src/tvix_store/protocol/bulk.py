"""The messages of BulkService that are one repeated field: many blobs, digests, directories, output hashes, path infos, paths."""

from __future__ import annotations

from collections.abc import Iterable

from tvix_store.errors import InvalidError
from tvix_store.model import wire
from tvix_store.model.digest import Digest
from tvix_store.model.path_info import PathInfo
from tvix_store.model.store_path import OUTPUT_HASH_SIZE, StorePath

MAX_BLOBS = 64 * 1024
"""Blobs, digests or directories in one message: a client of ours sends at most a quarter of them."""
MAX_PATHS = 16 * 1024
"""Output hashes in one message."""

MAX_PUT_PATHS = 1024
"""Path infos that are put in one message."""


def encode_blobs(blobs: Iterable[bytes]) -> bytes:
    """The message Blobs; also Directories and PathInfos, of messages Directory or PathInfo."""
    return b"".join(wire.message_field(1, blob) for blob in blobs)


def decode_blobs(message: bytes) -> list[bytes]:
    """The blobs in a message Blobs, in order; also the messages in Directories and PathInfos.

    Raises:
        InvalidError: the message is malformed, or has more than MAX_BLOBS.
    """
    return [wire.as_bytes(field, value) for field, value in wire.few_fields(message, MAX_BLOBS) if field == 1]


def decode_path_infos(message: bytes) -> list[PathInfo]:
    """The path infos in a message PathInfos, in order, each with its canonical encoding at hand.

    Raises:
        InvalidError: the message is malformed, or has more than MAX_PUT_PATHS.
    """
    found = [PathInfo.decode(wire.as_bytes(field, value)) for field, value in wire.few_fields(message, MAX_PUT_PATHS) if field == 1]
    for path_info in found:
        _ = path_info.encoded
    return found


def encode_digests(digests: Iterable[Digest]) -> bytes:
    """The message Digests."""
    return b"".join(b"\x0a\x20" + digest.raw for digest in digests)


def decode_digests(message: bytes) -> list[Digest]:
    """The digests in a message Digests, in order.

    Raises:
        InvalidError: the message is malformed, has more than MAX_BLOBS, or one is not 32 bytes.
    """
    return [Digest(wire.as_bytes(field, value)) for field, value in wire.few_fields(message, MAX_BLOBS) if field == 1]


def encode_output_hashes(output_hashes: Iterable[bytes]) -> bytes:
    """The message OutputHashes."""
    return b"".join(wire.message_field(1, each) for each in output_hashes)


def decode_output_hashes(message: bytes) -> list[bytes]:
    """The output hashes in a message OutputHashes, each once, in order.

    Raises:
        InvalidError: the message is malformed, has more than MAX_PATHS, or one is not 20 bytes.
    """
    found = dict.fromkeys(wire.as_bytes(field, value) for field, value in wire.few_fields(message, MAX_PATHS) if field == 1)
    for output_hash in found:
        if len(output_hash) != OUTPUT_HASH_SIZE:
            raise InvalidError(f"an output hash must be {OUTPUT_HASH_SIZE} bytes, got {len(output_hash)}")
    return list(found)


def encode_store_paths(paths: Iterable[StorePath]) -> bytes:
    """The message StorePaths."""
    return b"".join(wire.message_field(1, str(path).encode()) for path in paths)


def decode_store_paths(message: bytes) -> list[StorePath]:
    """The store paths in a message StorePaths.

    Raises:
        InvalidError: the message is malformed, has more than MAX_PATHS, or one is no base name of a store path.
    """
    found = [wire.as_text(field, value) for field, value in wire.few_fields(message, MAX_PATHS) if field == 1]
    return [StorePath.from_base_name(each) for each in found]
