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
import re
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import zstandard
from blake3 import blake3

from tvix_store.backends.objectstore.packed.contents import DIGEST_SIZE, Content, Kind, NarRow, Place
from tvix_store.errors import CorruptError, ExhaustedError
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
LARGEST_FOOTER = 64 << 20
"""Bytes of a footer, decompressed. A frame of a few bytes that becomes so many is none: digests do not compress."""
_RATIO, _SLACK = 4, 64 << 10
LARGEST_RECORD = 128 << 20
"""Bytes of the largest record, as it is stored and as it is meant."""
_OFFSETS = 1 << 32
_LAST = 1 << 47
"""The time from which on a commit says nothing of the clock of anybody: the year 6429."""
_COMMIT = re.compile(f"{COMMITS}/([0-9a-f]{{12}})-([0-9a-f]{{8}})-[0-9a-f]{{16}}")
_PLACE_OF_PACK = re.compile(f"{DATA}/[0-9a-f]{{32}}")


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
        """The bytes of the footer.

        Raises:
            ExhaustedError: nobody would read so many.
        """
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
        if len(body) > LARGEST_FOOTER:
            raise ExhaustedError(f"a commit with {count} records is too large; put fewer at a time")
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
        try:
            if zstandard.frame_content_size(packed) > min(LARGEST_FOOTER, _RATIO * len(packed) + _SLACK):
                raise CorruptError(f"the footer of {what} becomes too large")
            return _decoded(zstandard.decompress(packed))
        except (zstandard.ZstdError, struct.error, ValueError) as error:
            raise CorruptError(f"the footer of {what} is none: {error}") from None

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


def later_than(newest: str) -> int:
    """The first time behind that of a commit; 0 where there is none, or its key has a time that cannot be.

    Anybody who may write to the bucket can write such a key. The next one behind the very last would be none at all.
    """
    known = commit_time(newest) if newest else _LAST
    return known + 1 if known < _LAST else 0


def footer_size(key: str) -> int | None:
    """Bytes of a commit's footer; None where the key is none of a commit."""
    found = _COMMIT.fullmatch(key)
    return int(found[2], 16) if found else None


def is_pack(key: str) -> bool:
    """Whether a key is that of a commit, or of another pack."""
    return bool(_PLACE_OF_PACK.fullmatch(key) or _COMMIT.fullmatch(key))


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
    columns = packs * _PACK.size + segments * _SEGMENT.size + nars * _NAR.size + count * (1 + 4 + 4 + DIGEST_SIZE)
    if len(body) != at + columns or sum(entries for _, _, entries in heads) != count:
        raise ValueError("its columns are longer or shorter than they should be")
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
    _check(parts)
    return Footer(parts, rows)


def _check(parts: Sequence[PackPart]) -> None:
    """See that all can be meant so, and that a view can hold it.

    Raises:
        ValueError: it cannot.
    """
    for part in parts:
        if not set(part.kinds) <= set(Kind):
            raise ValueError("it has a record of an unknown kind")
        if part.offset + sum(part.stored[:-1]) >= _OFFSETS or max((*part.stored, *part.lengths), default=0) > LARGEST_RECORD:
            raise ValueError("it has a record where none can be")
        if part.kinds.count(Kind.LIST) != len(part.segments):
            raise ValueError("it has a list without a place in its blob")
