"""Content: something to store under a key, and what takes it."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from struct import Struct
from typing import Any, NamedTuple, Protocol, TypeAlias

from tvix_store.backends.local.compression import packed
from tvix_store.backends.local.packs import Place
from tvix_store.backends.local.records import KEY_SIZE, Buffer, Kind, NewRecord


@dataclass(slots=True)  # frozen, it would take four times as long to make one
class Content:
    """Something to store under a key: a chunk or directory (its digest), or a segment of a chunk list."""

    kind: Kind
    key: bytes
    payload: Buffer
    blob_size: int = 0
    """Of the blob that a chunk list belongs to."""
    packed: Buffer | None = None
    """The payload of a chunk as it is to be stored; None leaves it to the sink to compress it."""


_ROW = Struct(f"<B40sQ{Place.SIZE}s")
"""Kind, key, blob size, place."""
ROW_SIZE = _ROW.size
"""Bytes of a `Written` in a file."""


class Written(NamedTuple):
    """A content that lies in a pack, and that the index is to name."""

    kind: Kind
    key: bytes
    blob_size: int
    place: Place

    def to_bytes(self) -> bytes:
        return _ROW.pack(self.kind, self.key, self.blob_size, self.place.to_bytes())


def read_rows(rows: bytes) -> list[Written]:
    """From the bytes of several, one behind the other."""
    return [
        Written(Kind(kind), key if kind == Kind.CHUNK_LIST else key[:KEY_SIZE], blob_size, Place.from_bytes(place))
        for kind, key, blob_size, place in _ROW.iter_unpack(rows)
    ]


Name: TypeAlias = tuple[Kind, bytes]
"""What a content is known by: its kind and key."""


def name_of(content: Content | Written) -> Name:
    return content.kind, content.key


class Sink(Protocol):
    """Takes contents. Its methods may be called from any thread."""

    def unknown(self, contents: Sequence[Content]) -> list[Content]:
        """Those of the contents that are not known to be there; the others need not be compressed. May read from the disk."""
        ...

    def holds(self, size: int) -> bool:
        """Whether a put of so many bytes would only keep them in memory: they need not be compressed, nor looked up."""
        ...

    def put_contents(self, contents: Sequence[Content]) -> Future[Any]:
        """Store contents. They become visible with all else that this sink stores. The future is set when it has happened."""
        ...

    def write_contents(self, contents: Sequence[Content]) -> Future[Any]:
        """Write contents that nobody needs to see yet: the future is set when they are written, the next put makes them visible.

        A failure is told by this future alone: wait for it before you put what refers to these contents.
        """
        ...


def compress(contents: Sequence[Content], level: int) -> None:
    """Compress the chunks among the contents that are not compressed yet, in this thread."""
    chunks = [content for content in contents if content.kind is Kind.CHUNK and content.packed is None]
    for chunk, frame in zip(chunks, packed([chunk.payload for chunk in chunks], level, threads=1), strict=True):
        chunk.packed = frame


def new_records(contents: Sequence[Content], level: int, threads: int) -> list[NewRecord]:
    """The records of contents, whose chunks are compressed where they are not yet."""
    unpacked = [content for content in contents if content.kind is Kind.CHUNK and content.packed is None]
    payloads = [content.payload for content in unpacked]
    now_packed = dict(zip((content.key for content in unpacked), packed(payloads, level, threads), strict=True))
    return [
        NewRecord(
            content.kind,
            content.key[:KEY_SIZE],
            content.packed or now_packed.get(content.key, content.payload),
            len(content.payload),
        )
        for content in contents
    ]
