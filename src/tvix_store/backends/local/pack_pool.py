"""PackPool: packs that one writer after the other goes on with."""

from __future__ import annotations

import threading
from collections.abc import Callable

from tvix_store.backends.local.pack_writer import PackWriter

_SPARE = 4
"""Writers that are kept while nobody needs them: finding an unfinished pack takes milliseconds in a large store."""


class PackPool:
    """Lends out pack writers. Safe to use from many threads."""

    def __init__(self, new: Callable[[], PackWriter]) -> None:
        self._new = new
        self._spare: list[PackWriter] = []
        self._lock = threading.Lock()

    def take(self) -> PackWriter:
        """A writer that is the caller's until it is given back; all that it has appended is named."""
        with self._lock:
            while self._spare:
                writer = self._spare.pop()
                if not writer.is_lost:
                    return writer
                writer.close()
        return self._new()

    def give_back(self, writer: PackWriter) -> None:
        """Give a writer back. What it has appended, and the index does not name, is cut off."""
        writer.cut()
        with self._lock:
            is_kept = not writer.is_full and len(self._spare) < _SPARE
            if is_kept:
                self._spare.append(writer)
        if not is_kept:
            writer.close()

    def close(self) -> None:
        """Give up the packs that nobody has now."""
        with self._lock:
            while self._spare:
                self._spare.pop().close()
