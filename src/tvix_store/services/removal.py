"""Removal: an optional power of a store, to remove paths that nobody uses.

When a path was used last stands in a record, `used:` and the output hash. Its value is the hour (u32-LE), as whoever notes the uses
counts hours.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from tvix_store.errors import CorruptError

USED = b"used:"
"""How the keys of the records begin."""
HOUR = 3600.0
"""Seconds."""
_HOUR = struct.Struct("<I")


class Guard(NamedTuple):
    """A record, and the value that it must have: None for a record that is not there."""

    key: bytes
    value: bytes | None


@dataclass(frozen=True, slots=True)
class RemovalTerms:
    """What keeps a path: as in `Removal.remove`."""

    unused_since: int | None
    ignore_references: bool
    guard: Guard | None


class Removal(Protocol):
    """Removes path infos. Their content stays until it is collected."""

    async def remove(
        self,
        output_hashes: Collection[bytes],
        *,
        unused_since: int | None,
        ignore_references: bool = False,
        guard: Guard | None = None,
    ) -> set[bytes]:
        """Remove those of the paths that nobody has used in the hour `unused_since` or later; the output hashes of what is gone.

        Without `unused_since`, paths are removed however lately they were used. A path that is put meanwhile may stay.

        A path stays also if a path that stays refers to it. So a complete closure remains complete, also while others put and
        use paths. With `ignore_references`, that does not keep it.

        The paths go some at a time. Nothing goes any more when the `guard` has another value.

        A put that requires a removed path raises IncompleteError. Who puts a path that may be there notes its use first. A removal
        is durable.

        Raises:
            ExhaustedError: the disk is full.
        """
        ...


def used_key(output_hash: bytes) -> bytes:
    """The key of the record that says when a path was used last."""
    return USED + output_hash


def used_records(hours: Mapping[bytes, int]) -> dict[bytes, bytes]:
    """The records that say in which hours paths, by their output hashes, were used last."""
    return {used_key(output_hash): write_hour(hour) for output_hash, hour in hours.items()}


def write_hour(hour: int) -> bytes:
    """An hour as the value of a record."""
    return _HOUR.pack(hour)


def read_hour(value: bytes) -> int:
    """The hour in the value of a record.

    Raises:
        CorruptError: the value is damaged.
    """
    try:
        return int(_HOUR.unpack(value)[0])
    except struct.error:
        raise CorruptError(f"a record holds no hour, but {value[:20]!r}") from None
