"""Tree objects: all directories of a tree, and where the chunks of its files lie, in one object. So a new front end reads a path
without an index.

    trees/<hex digest of the root>:  `tvxT`, its version (u8), the first 16 bytes of the BLAKE3 of what follows, a zstd frame

The frame holds, with numbers in little-endian:

    u32 directories, u32 packs, u32 chunks, u32 cut blobs
    u32 bytes of each directory; the directories in their canonical encoding, the root first
    u8 bytes of the key of each pack; the keys
    of each chunk, in the order of the NAR: u32 its pack; i64 bytes behind the chunk before it; u32 stored length; u32 length
    the digest of each chunk (32 bytes)
    of each cut blob: its digest (32 bytes), u32 chunks, the number of each chunk (u32)

Each of these columns stands together. Places are advice, which may be out of date: what is read there is verified.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import zstandard
from blake3 import blake3

from tvix_store.backends.objectstore.packed.contents import DIGEST_SIZE, Place
from tvix_store.backends.objectstore.packed.pack import LARGEST_RECORD, is_pack
from tvix_store.errors import CorruptError
from tvix_store.model.digest import Digest
from tvix_store.model.directory import Directory

TREES = "trees"
MOST_CHUNKS = 200_000
"""Chunks of a tree for which there is an object, and
LARGEST: bytes of the object, decompressed."""
LARGEST = 64 << 20
_MAGIC = b"tvxT\x01"
_CHECK = 16
_HEAD = struct.Struct("<IIII")


@dataclass(frozen=True, slots=True)
class TreeObject:
    """A tree: its directories (encoded, by digest), where its chunks lie, in the order of its NAR, and the chunks of cut blobs."""

    directories: Mapping[bytes, bytes]
    chunks: Mapping[bytes, Place]
    lists: Mapping[bytes, Sequence[bytes]]

    def directory(self, digest: Digest) -> Directory | None:
        encoded = self.directories.get(digest.raw)
        return None if encoded is None else Directory.stored(digest, encoded)

    def encode(self) -> bytes:
        packs = {key: number for number, key in enumerate(dict.fromkeys(place.key for place in self.chunks.values()))}
        keys = [key.encode() for key in packs]
        numbers = {digest: number for number, digest in enumerate(self.chunks)}
        places = list(self.chunks.values())
        ends: dict[str, int] = {}
        gaps: list[int] = []
        for place in places:
            gaps.append(place.offset - ends.get(place.key, 0))
            ends[place.key] = place.end
        encoded = list(self.directories.values())
        listed = list(self.lists.values())
        body = b"".join(
            (
                _HEAD.pack(len(encoded), len(keys), len(places), len(listed)),
                _column("I", list(map(len, encoded))),
                *encoded,
                _column("B", list(map(len, keys))),
                *keys,
                _column("I", [packs[place.key] for place in places]),
                _column("q", gaps),
                _column("I", [place.stored for place in places]),
                _column("I", [place.length for place in places]),
                *self.chunks,
                *self.lists,
                _column("I", list(map(len, listed))),
                _column("I", [numbers[chunk] for each in listed for chunk in each]),
            )
        )
        packed = zstandard.compress(body, 3)
        return _MAGIC + blake3(packed).digest(length=_CHECK) + packed

    @classmethod
    def decode(cls, data: bytes, what: str) -> TreeObject:
        """Read a tree object; `what` names it in messages.

        Raises:
            CorruptError: it is none, or is damaged.
        """
        packed = data[len(_MAGIC) + _CHECK :]
        if not data.startswith(_MAGIC) or data[len(_MAGIC) :][:_CHECK] != blake3(packed).digest(length=_CHECK):
            raise CorruptError(f"{what} is damaged, or of a later version of tvix-store")
        try:
            if zstandard.frame_content_size(packed) > LARGEST:
                raise CorruptError(f"{what} has more than {LARGEST} bytes")
            return _decoded(zstandard.decompress(packed))
        except (zstandard.ZstdError, struct.error, ValueError, IndexError, StopIteration) as error:
            raise CorruptError(f"{what} is no tree object: {error}") from None


def tree_key(root: bytes) -> str:
    return f"{TREES}/{root.hex()}"


def _column(kind: str, numbers: Sequence[int]) -> bytes:
    return struct.pack(f"<{len(numbers)}{kind}", *numbers)


class _Columns:
    """Reads columns from the start of some bytes on."""

    def __init__(self, body: bytes, at: int) -> None:
        self._body = body
        self._at = at

    def numbers(self, kind: str, count: int) -> Sequence[int]:
        column = struct.Struct(f"<{count}{kind}")
        self._at += column.size
        return column.unpack_from(self._body, self._at - column.size)

    def parts(self, lengths: Sequence[int]) -> list[bytes]:
        ends = list(accumulate(lengths, initial=self._at))
        self._at = ends[-1]
        return [self._body[start:end] for start, end in pairwise(ends)]


def _decoded(body: bytes) -> TreeObject:
    directories, packs, chunks, lists = _HEAD.unpack_from(body)
    if len(body) < DIGEST_SIZE * (chunks + lists):
        raise ValueError("it is too short")
    columns = _Columns(body, _HEAD.size)
    encoded = columns.parts(columns.numbers("I", directories))
    keys = [key.decode() for key in columns.parts(columns.numbers("B", packs))]
    if not all(map(is_pack, keys)):
        raise ValueError("it names an object that is no pack")
    rows = zip(
        columns.numbers("I", chunks),
        columns.numbers("q", chunks),
        columns.numbers("I", chunks),
        columns.numbers("I", chunks),
        strict=True,
    )
    digests = columns.parts([DIGEST_SIZE] * chunks)
    ends = [0] * packs
    places: dict[bytes, Place] = {}
    for digest, (pack, gap, stored, length) in zip(digests, rows, strict=True):
        start = ends[pack] + gap
        if start < 0 or max(stored, length) > LARGEST_RECORD:
            raise ValueError("it has a chunk where none can be")
        places[digest] = Place(keys[pack], start, stored, length)
        ends[pack] = start + stored
    blobs = columns.parts([DIGEST_SIZE] * lists)
    counts = columns.numbers("I", lists)
    listed = iter(columns.numbers("I", sum(counts)))
    return TreeObject(
        {blake3(each).digest(): each for each in encoded},
        places,
        {blob: [digests[next(listed)] for _ in range(count)] for blob, count in zip(blobs, counts, strict=True)},
    )
