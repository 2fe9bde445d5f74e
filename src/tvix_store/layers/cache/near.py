"""Near: what keeps a part of a far store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, TypeAlias

Value: TypeAlias = bytes | memoryview


class Near(Protocol):
    """Keeps values by key while there is room. It may lose any of them, and may give out damaged ones: the caller checks them.

    Keys have some 33 bytes, and begin with their kind. It may be called in any thread.
    """

    def get(self, keys: Sequence[bytes]) -> Sequence[Value | None]:
        """The values, in order; None for each that it has not. A value that is got counts as used now. Nothing is raised."""
        ...

    def peek(self, key: bytes) -> Value | None:
        """As `get`, of one value, without waiting for a disk.

        Raises:
            BlockingIOError: only `get` can tell.
        """
        ...

    def put(self, values: Mapping[bytes, Value]) -> None:
        """Keep values, in place of older ones, as far as that is possible. Nothing is raised."""
        ...

    def close(self) -> None:
        """Let go of files. From then on it has nothing, and keeps nothing. It may be called again."""
        ...
