"""RecordService: small values by name, for what is neither content nor a path."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping
from typing import Protocol, TypeAlias

from tvix_store.errors import InvalidError

Changes: TypeAlias = Mapping[bytes, tuple[bytes | None, bytes | None]]
"""For each key, the value that is expected, and the new one. None stands for a record that is not there."""
MAX_KEY = 400
"""Bytes of the longest key: what every backend can use as a key of its own."""
MAX_VALUE = 64 * 1024
"""Bytes of the largest value; what is larger is a blob, and its digest the value."""


class RecordService(Protocol):
    """Keeps values of up to MAX_VALUE bytes under keys of 1 to MAX_KEY bytes. A key begins with its kind, as in `nar:…`."""

    async def get(self, key: bytes) -> bytes | None:
        """The value that was put last, or None."""
        ...

    async def put(self, records: Mapping[bytes, bytes], *, durable: bool = True) -> None:
        """Store values in place of those that were there: all, or none.

        They survive a killed process, and a power cut too, with all content put before. Those that are not put as `durable` survive
        a power cut from half a second later on, or as soon as something durable is put behind them.

        Raises:
            InvalidError: a key or a value is too long, or a key empty.
            ExhaustedError: the disk is full.
        """
        ...

    async def delete(self, keys: Collection[bytes]) -> None:
        """Delete the records with these keys, as far as they are there: all, or none. Deletions are as durable as puts.

        Raises:
            ExhaustedError: the disk is full.
        """
        ...

    async def exchange(self, changes: Changes) -> int:
        """Change records that still have the value that is expected; how many these are.

        It is as durable as a put that is not `durable`.

        Raises:
            InvalidError, ExhaustedError: as `put`.
        """
        ...

    def list(self, prefix: bytes = b"") -> AsyncIterator[tuple[bytes, bytes]]:
        """All records whose keys begin with `prefix`: key and value, ordered by key. Records may be put and deleted meanwhile."""
        ...


def check_records(records: Mapping[bytes, bytes]) -> None:
    """Raise InvalidError where a key or value breaks a rule of RecordService."""
    for key, value in records.items():
        if not 1 <= len(key) <= MAX_KEY:
            raise InvalidError(f"the key of a record has {len(key)} bytes; 1 to {MAX_KEY} are allowed")
        if len(value) > MAX_VALUE:
            raise InvalidError(f"the record {key[:80]!r} has {len(value)} bytes, more than {MAX_VALUE}")
