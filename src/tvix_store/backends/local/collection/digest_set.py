"""DigestSet: many digests in little memory."""

from __future__ import annotations

_SLOT = 16
"""Bytes of a digest that are kept. Nobody has found two digests that begin alike; whoever does, harms content of his own."""
_EMPTY = bytes(_SLOT)
_SPARE = 1.5
"""Slots for each digest that there is room for: three probes for most of them."""
_LEAST = 1024


class DigestSet:
    """A set of digests (32 bytes) in a table of 24 bytes for each of `most`; a Python set takes 100. It grows beyond that."""

    def __init__(self, most: int = 0) -> None:
        self._make(most)

    def __len__(self) -> int:
        return self._count

    def __contains__(self, digest: object) -> bool:
        assert isinstance(digest, bytes)
        return self._find(digest[:_SLOT]) < 0

    def add(self, digest: bytes) -> bool:
        """Add a digest; whether it was new."""
        key = digest[:_SLOT]
        at = self._find(key)
        if at < 0:
            return False
        if self._count >= self._most:
            self._grow()
            at = self._find(key)
        self._table[at : at + _SLOT] = key
        self._count += 1
        return True

    def _make(self, most: int) -> None:
        self._most = max(most, _LEAST)
        self._slots = int(self._most * _SPARE)
        self._table = bytearray(self._slots * _SLOT)
        self._count = 0

    def _grow(self) -> None:
        old = self._table
        self._make(2 * self._most)
        for at in range(0, len(old), _SLOT):
            if old[at : at + _SLOT] != _EMPTY:
                self.add(bytes(old[at : at + _SLOT]))

    def _find(self, key: bytes) -> int:
        """-1 where the key is there, else the empty slot for it."""
        table = self._table
        at = int.from_bytes(key[:6], "little") % self._slots * _SLOT
        while (there := table[at : at + _SLOT]) != _EMPTY:
            if there == key:
                return -1
            at += _SLOT
            if at == len(table):
                at = 0
        return at
