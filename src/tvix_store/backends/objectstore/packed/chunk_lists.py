"""Chunk lists: which chunks a cut blob is made of, in segments, so that neither a huge blob nor a small range costs memory.

A segment: the first 16 bytes of the BLAKE3 of all else, the digest of the blob (32 bytes), u64 size of the blob, u64 offset in the
blob of its first chunk, then for each chunk its digest (32 bytes) and length (u32). Numbers are little-endian.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from blake3 import blake3

from tvix_store.backends.objectstore.packed.contents import Content, Kind
from tvix_store.errors import CorruptError

SEGMENT_CHUNKS = 4096
"""Chunks a segment: 144 KiB, for half a GiB of blob."""
_CHECK = 16
_HEAD = struct.Struct("<32sQQ")
_ENTRY = struct.Struct("<32sI")


@dataclass(frozen=True, slots=True)
class ChunkListSegment:
    """A part of a chunk list: the size of the blob, and where in it the first chunk begins."""

    size: int
    start: int
    _entries: bytes | memoryview

    @property
    def entries(self) -> Iterator[tuple[bytes, int]]:
        """Digest and length of each chunk."""
        return _ENTRY.iter_unpack(self._entries)

    @property
    def end(self) -> int:
        return self.start + sum(length for _, length in self.entries)

    @classmethod
    def whole(cls, chunks: Iterable[tuple[bytes, int]]) -> ChunkListSegment:
        """All of a list, given by digests and lengths."""
        listed = list(chunks)
        return cls(sum(length for _, length in listed), 0, b"".join(_ENTRY.pack(*each) for each in listed))

    @classmethod
    def decode(cls, data: bytes | memoryview, blob: bytes) -> ChunkListSegment:
        """Read a segment of the list of `blob`.

        Raises:
            CorruptError: it is none, or is damaged.
        """
        if len(data) > _CHECK + _HEAD.size and blake3(data[_CHECK:]).digest(length=_CHECK) == data[:_CHECK]:
            its_blob, size, start = _HEAD.unpack_from(data, _CHECK)
            entries = data[_CHECK + _HEAD.size :]
            if its_blob == blob and not len(entries) % _ENTRY.size:
                return cls(size, start, entries)
        raise CorruptError(f"the list of the chunks of blob b3:{blob.hex()} is damaged")


class ChunkListBuilder:
    """Collects the list of a blob whose digest and size are known only at its end: 36 bytes a chunk."""

    def __init__(self) -> None:
        self._entries = bytearray()
        self.size = 0

    def __len__(self) -> int:
        return len(self._entries) // _ENTRY.size

    def add(self, digest: bytes, length: int) -> None:
        self._entries += _ENTRY.pack(digest, length)
        self.size += length

    def segments(self, blob: bytes) -> Iterator[Content]:
        """The segments of the list of `blob`. Nothing of a blob of one chunk, which needs no list.

        The first segment comes last: with it, the blob is there.
        """
        if len(self) < 2:
            return
        step = SEGMENT_CHUNKS * _ENTRY.size
        parts = [bytes(self._entries[at : at + step]) for at in range(0, len(self._entries), step)]
        end = self.size
        for part in reversed(parts):
            end -= sum(length for _, length in _ENTRY.iter_unpack(part))
            body = _HEAD.pack(blob, self.size, end) + part
            data = blake3(body).digest(length=_CHECK) + body
            yield Content(Kind.LIST, blob, data, len(data), end, self.size)
