"""What the packed layout stores, and where it lies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import IntEnum
from typing import NamedTuple, Protocol

from tvix_store.model.digest import Digest
from tvix_store.model.directory import Directory
from tvix_store.model.path_info import NarFacts

DIGEST_SIZE = 32


class Kind(IntEnum):
    """Of a record in a pack."""

    CHUNK = 1
    DIRECTORY = 2
    LIST = 3
    """A segment of the list of a blob's chunks."""


class Place(NamedTuple):
    """Where a record lies: the key of its object, its offset there, and its stored and meant length (bytes).

    Stored shorter than meant is one zstd frame.
    """

    key: str
    offset: int
    stored: int
    length: int

    @property
    def end(self) -> int:
        return self.offset + self.stored


class Content(NamedTuple):
    """A record to be stored: its digest (of a list: of the blob), what is to be stored of it, and its length when decompressed.

    start: Of a segment of a list: where in the blob its first chunk begins.
    size: Of a segment of a list: the size of the blob.
    """

    kind: Kind
    digest: bytes
    stored: bytes | memoryview
    length: int
    start: int = 0
    size: int = 0

    @property
    def name(self) -> Name:
        return self.kind, self.digest, self.start


Name = tuple[Kind, bytes, int]
"""What a record is known by: its kind, its digest, and the start of a segment."""


class NarRow(NamedTuple):
    """The facts of a NAR, by the BLAKE3 digest of its nameless root node."""

    node: bytes
    facts: NarFacts


class Sink(Protocol):
    """Takes contents, and whole graphs of directories."""

    async def unknown(self, names: Sequence[Name]) -> set[Name]:
        """The names whose content has to be put."""
        ...

    async def put(self, contents: Sequence[Content]) -> None:
        """Store contents, or stage them. They may be known."""
        ...

    async def put_graph(self, root: Digest, contents: Sequence[Content], graph: Mapping[bytes, Directory]) -> None:
        """As `put`, of the contents that are new of a graph of directories, all of which are given by their digests."""
        ...
