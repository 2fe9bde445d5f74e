"""Statistics: how much a store holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Stats:
    """How much a store holds. Bytes throughout.

    `logical_bytes` counts content as often as paths refer to it (the sum of NAR sizes). `unique_bytes` counts each distinct chunk
    once, and `stored_bytes` the same as it is stored, compressed. `disk_bytes` are all bytes of the store on disk. `chunked_blobs`
    are the blobs that were cut; the others are a chunk each.
    """

    path_infos: int
    directories: int
    chunked_blobs: int
    chunks: int
    logical_bytes: int
    unique_bytes: int
    stored_bytes: int
    disk_bytes: int


class Statistics(Protocol):
    """An optional power of a backend: to count what it holds."""

    async def stats(self) -> Stats: ...
