"""ContentCollection: an optional power of a store, to delete content that no path needs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeAlias

Progress: TypeAlias = Callable[[str, int, int], None]
"""Called in any thread with what is done now, how much of it is done, and how much there is."""


@dataclass(frozen=True, slots=True)
class Amount:
    """How many chunks, segments of chunk lists, and directories, and the bytes that they take on the disk."""

    count: int = 0
    size: int = 0

    def __add__(self, other: Amount) -> Amount:
        return Amount(self.count + other.count, self.size + other.size)


NOTHING = Amount()


@dataclass(frozen=True, slots=True)
class Collected:
    """What a run of the collection has done.

    condemned: What is condemned since this run; of `expected`, what would be.
    dropped: What was condemned, and does not exist any more.
    waiting: What was condemned by an earlier run, and waits.
    ready_at: When a later run can drop what is condemned (seconds since 1970); 0 where nothing is.
    freed: Bytes by which the files of the store have become smaller.
    held: Bytes that are dead in packs that others write to now: a later run gives them back.
    """

    condemned: Amount = NOTHING
    dropped: Amount = NOTHING
    waiting: Amount = NOTHING
    ready_at: int = 0
    freed: int = 0
    held: int = 0


class Room(NamedTuple):
    """Bytes of a store's files, and bytes that are free on the file system that they lie on."""

    used: int
    free: int


class ContentCollection(Protocol):
    """Deletes content in two steps. First it is condemned: it counts as missing for writers, and whoever finds it takes it back.

    A later run deletes it, when nobody relies on older answers any more.
    """

    async def collect(self, grace: float, *, progress: Progress | None = None) -> Collected:
        """Condemn what no path and no record needs, and delete what was condemned at least `grace` seconds ago.

        It may be stopped at any moment, and then goes on with the next run.

        Raises:
            UnavailableError: another process collects this store.
            CorruptError: something that a path needs is missing or damaged. Nothing was condemned or deleted.
            InvalidError: there never was a path: this may be the content of a store whose path infos are elsewhere.
            DeniedError: the store can only be read.
            ExhaustedError: the disk is full.
        """
        ...

    async def expected(self, without: Collection[bytes] = (), *, progress: Progress | None = None) -> Collected:
        """What would be condemned if the paths `without` (output hashes) were not there, and what is. Nothing is changed.

        Raises:
            CorruptError, InvalidError, UnavailableError: as `collect`.
        """
        ...

    async def fitting(self, output_hashes: Sequence[bytes], size: int, *, progress: Progress | None = None) -> int:
        """How many of these paths, from the first on, fit in `size` bytes of disk, with all content that they need, counted once.

        Raises:
            InvalidError: `size` is less than what the store takes without any path.
            CorruptError: stored content is damaged.
        """
        ...

    async def room(self) -> Room:
        """How much of its disk the store takes."""
        ...
