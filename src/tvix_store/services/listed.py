"""Long lists of chunks as sequences. A chunk becomes an object when it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar, overload

from tvix_store.model.chunk_table import ChunkTable, Row
from tvix_store.model.digest import Digest
from tvix_store.services.blobs import Chunk
from tvix_store.services.frames import Frame

T_co = TypeVar("T_co", covariant=True)


class _Listed(Sequence[T_co]):
    def __init__(self, table: ChunkTable, made: Callable[[Row], T_co]) -> None:
        self._table = table
        self._made = made

    def __len__(self) -> int:
        return len(self._table)

    def __iter__(self) -> Iterator[T_co]:
        return map(self._made, self._table)

    @overload
    def __getitem__(self, at: int) -> T_co: ...

    @overload
    def __getitem__(self, at: slice) -> Sequence[T_co]: ...

    def __getitem__(self, at: int | slice) -> T_co | Sequence[T_co]:
        if isinstance(at, slice):
            start, stop, step = at.indices(len(self))
            if step == 1:
                return _Listed(self._table.part(start, stop), self._made)
            return [self[number] for number in range(start, stop, step)]
        return self._made(self._table.row(range(len(self))[at]))


def listed_frames(table: ChunkTable) -> Sequence[Frame]:
    """The chunks of a table as frames."""
    return _Listed(table, Frame._make)


def listed_chunks(table: ChunkTable) -> Sequence[Chunk]:
    """The chunks of a table."""
    return _Listed(table, _chunk)


def _chunk(row: Row) -> Chunk:
    digest, length, _ = row
    return Chunk(Digest(digest), length)
