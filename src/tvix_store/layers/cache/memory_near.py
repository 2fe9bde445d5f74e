"""MemoryNear: a Near in the memory of this process."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence

from tvix_store.layers.cache.near import Value

_COST = 200
"""Bytes of memory that an entry takes beside its key and its value."""


class MemoryNear:
    """Keeps up to `size` bytes. What was not used for longest goes first."""

    def __init__(self, size: int) -> None:
        self._left = size
        self._values: OrderedDict[bytes, Value] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, keys: Sequence[bytes]) -> list[Value | None]:
        """As `Near.get`."""
        with self._lock:
            found = [self._values.get(key) for key in keys]
            for key, value in zip(keys, found, strict=True):
                if value is not None:
                    self._values.move_to_end(key)
        return found

    def peek(self, key: bytes) -> Value | None:
        """As `Near.peek`."""
        return self.get([key])[0]

    def put(self, values: Mapping[bytes, Value]) -> None:
        """As `Near.put`."""
        with self._lock:
            for key, value in values.items():
                self._drop(key)
                self._values[key] = value
                self._left -= _cost(key, value)
            while self._left < 0 and self._values:
                self._drop(next(iter(self._values)))

    def close(self) -> None:
        """As `Near.close`."""
        with self._lock:
            self._values.clear()
            self._left = 0

    def _drop(self, key: bytes) -> None:
        value = self._values.pop(key, None)
        if value is not None:
            self._left += _cost(key, value)


def _cost(key: bytes, value: Value) -> int:
    return len(key) + len(value) + _COST
