"""The format of packs. A commit is a pack with a footer; other packs are records alone, which a commit's footer names.

    commits/<12 hex: milliseconds since 1970>-<8 hex: bytes of the footer>-<16 hex: random>:  records, footer
    data/<32 hex: random>:                                                                   records

A footer is `tvxF`, its version (u8), the first 16 bytes of the BLAKE3 of what follows, and a zstd frame of the following. All
numbers are little-endian.

    u32 packs, u32 entries, u32 list segments, u32 NARs
    pack*:          16 bytes of its name (zeros: the commit itself), u32 offset of its first entry, u32 entries
    kinds:          u8 an entry
    stored lengths: u32 an entry
    lengths:        u32 an entry
    segments:       u64 start, u64 size of the blob, for each list segment among the entries
    digests:        32 bytes an entry
    NAR*:           32 bytes BLAKE3 of the nameless root node, u64 size, 32 bytes SHA-256

The entries of a pack lie end to end, in the order of the footer, from the offset of the first on. So no offset is written.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import zstandard
from blake3 import blake3

from tvix_store.backends.objectstore.packed.contents import DIGEST_SIZE, Content, Kind, NarRow, Place
from tvix_store.errors import CorruptError
from tvix_store.model.path_info import NarFacts

COMMITS = "commits"
DATA = "data"
MOST_ENTRIES = 150_000
"""Entries of one footer: some 6 MB of it, and 20 GiB of chunks. What has more is stored by several commits."""
_MAGIC = b"tvxF\x01"
_CHECK = 16
_NAME = 16
_HEAD = struct.Struct("<IIII")
_PACK = struct.Struct(f"<{_NAME}sII")
_SEGMENT = struct.Struct("<QQ")
_NAR = struct.Struct("<32sQ32s")
_ITSELF = bytes(_NAME)
_LARGEST = 64 << 20
"""Bytes of a footer that is read, decompressed."""


class Entry(NamedTuple):
    """A record, and where it lies: see `Content`."""

    kind: int
    digest: bytes
    place: Place
    start: int
    size: int


@dataclass(slots=True)
class PackPart:
    """Records of one pack, end to end from `offset` on. The pack of the commit itself has no key yet: its key is empty."""

    key: str
    offset: int = 0
    kinds: bytearray = field(default_factory=bytearray)
    stored: list[int] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    segments: list[tuple[int, int]] = field(default_factory=list)
    digests: list[bytes] = field(default_factory=list)

    def add(self, content: Content) -> None:
        self.kinds.append(content.kind)
        self.stored.append(len(content.stored))
        self.lengths.append(content.length)
        self.digests.append(content.digest)
        if content.kind == Kind.LIST:
            self.segments.append((content.start, content.size))

    def __len__(self) -> int:
        return len(self.digests)

    def entries(self, key: str = "") -> Iterator[Entry]:
        """Its records; `key` names the pack where it has none yet."""
        key = self.key or key
        at = self.offset
        segments = iter(self.segments)
        for kind, digest, stored, length in zip(self.kinds, self.digests, self.stored, self.lengths, strict=True):
            start, size = next(segments) if kind == Kind.LIST else (0, 0)
            yield Entry(kind, digest, Place(key, at, stored, length), start, size)
            at += stored


@dataclass(frozen=True, slots=True)
class Footer:
    """What a commit makes visible."""

    parts: Sequence[PackPart]
    nars: Sequence[NarRow] = ()

    def encode(self) -> bytes:
        count = sum(map(len, self.parts))
        segments = [_SEGMENT.pack(*each) for part in self.parts for each in part.segments]
        body = b"".join(
            (
                _HEAD.pack(len(self.parts), count, len(segments), len(self.nars)),
                *(_PACK.pack(_name_of(part.key), part.offset, len(part)) for part in self.parts),
                *(part.kinds for part in self.parts),
                _numbers(number for part in self.parts for number in part.stored),
                _numbers(number for part in self.parts for number in part.lengths),
                *segments,
                *(digest for part in self.parts for digest in part.digests),
                *(_NAR.pack(row.node, row.facts.size, row.facts.sha256) for row in self.nars),
            )
        )
        packed = zstandard.compress(body, 3)
        return _MAGIC + blake3(packed).digest(length=_CHECK) + packed

    @classmethod
    def decode(cls, data: bytes | memoryview, what: str) -> Footer:
        """Read a footer; `what` names its commit in messages.

        Raises:
            CorruptError: it is none, or is damaged.
        """
        start = len(_MAGIC) + _CHECK
        packed = data[start:]
        if bytes(data[: len(_MAGIC)]) != _MAGIC or blake3(packed).digest(length=_CHECK) != bytes(data[len(_MAGIC) : start]):
            raise CorruptError(f"the footer of {what} is damaged, or of a later version of tvix-store")
        if zstandard.frame_content_size(packed) > _LARGEST:
            raise CorruptError(f"the footer of {what} has more than {_LARGEST} bytes")
        return _decoded(zstandard.decompress(packed))

    def entries(self, key: str) -> Iterator[Entry]:
        """All records, of the commit with this key."""
        for part in self.parts:
            yield from part.entries(key)


def commit_key(time: int, footer: int) -> str:
    """A new key for a commit at `time` (milliseconds since 1970), whose footer has so many bytes."""
    return f"{COMMITS}/{time:012x}-{footer:08x}-{os.urandom(8).hex()}"


def commit_time(key: str) -> int:
    """Milliseconds since 1970."""
    return int(key[len(COMMITS) + 1 :][:12], 16)


def footer_size(key: str) -> int | None:
    """Bytes of a commit's footer; None where the key is none of a commit."""
    parts = key.removeprefix(f"{COMMITS}/").split("-")
    if len(parts) != 3 or [len(part) for part in parts] != [12, 8, 16]:
        return None
    try:
        return [int(part, 16) for part in parts][1]
    except ValueError:
        return None


def data_key() -> str:
    """A new key for a pack without a footer."""
    return f"{DATA}/{os.urandom(_NAME).hex()}"


def _name_of(key: str) -> bytes:
    return bytes.fromhex(key.removeprefix(f"{DATA}/")) if key else _ITSELF


def _numbers(numbers: Iterable[int]) -> bytes:
    listed = list(numbers)
    return struct.pack(f"<{len(listed)}I", *listed)


def _decoded(body: bytes) -> Footer:
    packs, count, segments, nars = _HEAD.unpack_from(body)
    at = _HEAD.size
    heads = [_PACK.unpack_from(body, at + number * _PACK.size) for number in range(packs)]
    at += packs * _PACK.size
    kinds = body[at : at + count]
    stored = struct.unpack_from(f"<{count}I", body, at + count)
    lengths = struct.unpack_from(f"<{count}I", body, at + 5 * count)
    at += 9 * count
    ranges = list(_SEGMENT.iter_unpack(body[at : at + segments * _SEGMENT.size]))
    at += segments * _SEGMENT.size
    digests = [body[start : start + DIGEST_SIZE] for start in range(at, at + count * DIGEST_SIZE, DIGEST_SIZE)]
    at += count * DIGEST_SIZE
    rows = [NarRow(node, NarFacts(size, sha256)) for node, size, sha256 in _NAR.iter_unpack(body[at : at + nars * _NAR.size])]
    parts: list[PackPart] = []
    first = first_segment = 0
    for name, offset, entries in heads:
        end = first + entries
        own = bytearray(kinds[first:end])
        end_segment = first_segment + own.count(Kind.LIST)
        parts.append(
            PackPart(
                "" if name == _ITSELF else f"{DATA}/{name.hex()}",
                offset,
                own,
                list(stored[first:end]),
                list(lengths[first:end]),
                ranges[first_segment:end_segment],
                digests[first:end],
            )
        )
        first, first_segment = end, end_segment
    return Footer(parts, rows)
