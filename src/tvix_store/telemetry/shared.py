"""Counts of several processes in one shared memory.

A supervisor makes the memory before it forks. Each worker has a *row*, and is the only writer there. A reader in any worker adds
the rows up. A worker that takes the place of a dead one goes on with the row of the dead one, so that no sum ever falls.

A row is a table of entries, each with a name and a float of 8 bytes. The float is aligned and stored at once: a reader never sees
half of it, and a killed writer has counted, or has not. An entry's name is written before the number of entries grows.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator

_ENTRY = 256
"""Bytes of an entry: the float, two bytes of the name's length, the name."""
_MOST_ENTRIES = 4095
"""Entries of a row. The daemon needs a few hundred. Memory that no entry uses is never touched, and costs nothing."""
_ROW = _ENTRY * (_MOST_ENTRIES + 1)
"""Bytes of a row. The first entry's place has the number of entries."""
_HEAD = 10
"""Bytes of an entry before its name."""


class Row:
    """The counts of one process, for that process to write."""

    def __init__(self, memory: memoryview) -> None:
        self._memory = memory
        self.values = memory.cast("d")
        """The floats of the row by position; for hot paths, which add to them directly."""
        self._positions = {name: position for name, position, _ in _entries(memory)}

    def position(self, name: str) -> int:
        """The position of the float with this name in `values`; it is 0 at first.

        A name that is too long, or one too many, gets a float that nobody reads.
        """
        found = self._positions.get(name)
        if found is not None:
            return found
        encoded, count = name.encode(), len(self._positions)
        if count == _MOST_ENTRIES or len(encoded) > _ENTRY - _HEAD:
            return 1
        start = _ENTRY * (count + 1)
        self._memory[start + 8 : start + _HEAD + len(encoded)] = len(encoded).to_bytes(2, "little") + encoded
        self._positions[name] = start // 8
        self.values[0] = count + 1
        return start // 8

    @classmethod
    def private(cls) -> Row:
        """A row that no other process sees."""
        return cls(memoryview(mmap.mmap(-1, _ROW)))


class SharedRows:
    """The rows of several processes. To be made before they are forked.

    rows: Their number, which is that of the writers.
    """

    def __init__(self, rows: int) -> None:
        memory = memoryview(mmap.mmap(-1, rows * _ROW))
        self._rows = [memory[start : start + _ROW] for start in range(0, rows * _ROW, _ROW)]

    def row(self, number: int) -> Row:
        """A row, for its one writer."""
        return Row(self._rows[number])

    def read(self) -> list[dict[str, float]]:
        """The counts of each row by name, as they are now."""
        return [{name: value for name, _, value in _entries(row)} for row in self._rows]


def _entries(memory: memoryview) -> Iterator[tuple[str, int, float]]:
    """Name, position and value of each entry of a row."""
    values = memory.cast("d")
    for start in range(_ENTRY, _ENTRY * (int(values[0]) + 1), _ENTRY):
        length = int.from_bytes(memory[start + 8 : start + _HEAD], "little")
        yield bytes(memory[start + _HEAD : start + _HEAD + length]).decode(), start // 8, values[start // 8]
