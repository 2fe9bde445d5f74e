"""StoredFrames: an optional power of a backend that keeps chunks as zstd frames."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, TypeAlias, TypeVar

from tvix_store.model.digest import Digest

T = TypeVar("T")

Run: TypeAlias = bytes
"""The digests of some chunks, 32 bytes each, one behind the other."""


class Frame(NamedTuple):
    """A chunk as it is stored: its digest (32 bytes), its length, and the length of what is stored (bytes).

    It is one zstd frame where `stored` is smaller than `length`, and the chunk itself where they are the same.
    """

    digest: bytes
    length: int
    stored: int


class StoredFrames(Protocol):
    """Gives out content as it is stored, to be passed on without decompressing it."""

    async def find(self, digests: Sequence[Digest]) -> list[list[Frame]]:
        """The chunks of each blob, in order.

        Raises:
            NotFoundError: a blob is not there.
            CorruptError: a chunk of one is not.
        """
        ...

    async def read(self, runs: Sequence[Run], use: Callable[[list[list[memoryview]]], T]) -> T:
        """Hand the stored bytes of the chunks of each run to `use`, in a thread, and return what it returns.

        The bytes are not verified. `use` checks them, and raises CorruptError if they are wrong. It may then be called once more,
        after a new lookup. The backend remembers the places of a run, so reading it again costs no lookup.

        Raises:
            NotFoundError: a chunk is not there.
            CorruptError: the bytes of one are not there, or `use` raised it.
        """
        ...
