"""Chunk lists: which chunks a cut blob is made of, kept in segments so that neither a huge blob nor a small range costs memory.

A segment's payload: u64 blob size, u64 offset in the blob of its first chunk, then per chunk its digest (32 bytes) and size (u32).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import SpooledTemporaryFile

from tvix_store.backends.local.contents import Content
from tvix_store.backends.local.disk import disk_errors
from tvix_store.backends.local.records import Kind

SEGMENT_CHUNKS = 4096
"""Chunks a segment: 144 KiB, for half a GiB of blob."""
_HEAD = struct.Struct("<QQ")
_ENTRY = struct.Struct("<32sI")
SEGMENT_HEAD = _HEAD.size
"""Bytes at the start of a segment's payload that `segment_key` needs."""
_SPOOL_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of a chunk list: the size of the blob, and the offset in it of the first chunk.

    A reader keeps it while its client is slow: 144 KiB, where a list of all entries would take 600.
    """

    blob_size: int
    offset: int
    _entries: bytes

    @property
    def entries(self) -> Iterator[tuple[bytes, int]]:
        """Digest and size of each chunk."""
        return _ENTRY.iter_unpack(self._entries)

    @property
    def end(self) -> int:
        return self.offset + sum(size for _, size in self.entries)


def parse_segment(payload: bytes) -> Segment:
    blob_size, offset = _HEAD.unpack_from(payload)
    return Segment(blob_size, offset, payload[_HEAD.size :])


def segment_key(blob: bytes, payload: bytes) -> tuple[bytes, int]:
    """The key in the index of a segment, and its blob's size."""
    blob_size, offset = _HEAD.unpack_from(payload)
    return chunk_list_key(blob, offset), blob_size


def chunk_list_key(blob: bytes, offset: int) -> bytes:
    return blob + offset.to_bytes(8, "big")


def is_first(key: bytes) -> bool:
    """Whether this is the key of the first segment of a list: the one that makes it visible."""
    return key.endswith(b"\0" * 8)


class ChunkListWriter:
    """Collects the chunk list of a blob whose digest and size are known only at its end.

    A large list waits in a nameless file of `directory`.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._spool = SpooledTemporaryFile(max_size=_SPOOL_BYTES, dir=str(directory))  # noqa: SIM115  # closed by `close`
        self.chunks = 0
        self.size = 0

    def add(self, digest: bytes, size: int) -> None:
        with disk_errors(self._directory):
            self._spool.write(_ENTRY.pack(digest, size))
        self.chunks += 1
        self.size += size

    def segments(self, blob: bytes) -> Iterator[Content]:
        """The finished segments of the blob with digest `blob`, the first one last: with it the blob becomes visible."""
        starts: list[tuple[int, int]] = []
        offset = 0
        self._spool.seek(0)
        while data := self._spool.read(SEGMENT_CHUNKS * _ENTRY.size):
            starts.append((offset, len(data)))
            offset += sum(size for _, size in _ENTRY.iter_unpack(data))
        at = self.chunks * _ENTRY.size
        for offset, length in reversed(starts):
            at -= length
            self._spool.seek(at)
            payload = _HEAD.pack(self.size, offset) + self._spool.read(length)
            yield Content(Kind.CHUNK_LIST, chunk_list_key(blob, offset), payload, blob_size=self.size)

    def close(self) -> None:
        self._spool.close()
