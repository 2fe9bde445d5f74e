"""What is known of damage to the index: the file `<store>/index-damaged`, and notes of processes that died in it.

A bit that flips in the index harms no content: packs hold everything. Whoever finds the damage writes the file. Health tells of it,
and who opens the store next, and is alone, makes the index anew.

LMDB believes its pages, so a damaged one can kill the process that reads it (SIGBUS). Then nobody is left to write the file.
Python's fault handler leaves a traceback in the file `lock` instead, where the next to open the store finds it.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import threading
from contextlib import suppress
from pathlib import Path

from tvix_store.backends.local.disk import disk_errors, open_or_create
from tvix_store.backends.local.durability import Durability

FILE = "index-damaged"
_FRAME = '  File "'
_OURS = tuple(f"/backends/local/{name}.py" for name in ("index", "environment"))
_MOST_NOTES = 1 << 16
"""Bytes that are read of notes."""
_log = logging.getLogger(__name__)


def has_notes_of_index(path: Path) -> bool:
    """Whether a process died while it worked on the index, for a reader who may not write to the notes; False where there are
    none."""
    with suppress(FileNotFoundError), path.open("rb") as notes:
        return _is_of_index(notes.read(_MOST_NOTES).decode(errors="replace"))
    return False


def _is_of_index(text: str) -> bool:
    frames = [line for line in text.splitlines() if line.startswith(_FRAME)]
    return bool(frames) and any(module in frames[0] for module in _OURS)


class DamageMark:
    """The file that tells all processes that the index is damaged."""

    def __init__(self, store: Path) -> None:
        self._store = store
        self._path = store / FILE
        self._lock = threading.Lock()
        self._is_told = False

    def is_set(self) -> bool:
        return self._is_told or self._path.exists()

    def set(self, what: str) -> None:
        """Tell of damage; what follows in this process is not told again."""
        with self._lock:
            if self._is_told:
                return
            self._is_told = True
        _log.error("%s; the index is made anew when the store is opened next, by one process alone", what)
        with suppress(OSError):  # a full disk, or one that we may only read: at least this process knows
            fd = open_or_create(self._path)
            try:
                os.write(fd, f"{what}\n".encode())
            finally:
                os.close(fd)

    def clear(self, durability: Durability) -> None:
        with disk_errors(self._store):
            if self._path.exists():
                self._path.unlink(missing_ok=True)
                durability.sync_names(self._store)
        self._is_told = False


class CrashNotes:
    """Notes in an open file, by the processes that died while they had it open."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._is_writer = False

    def begin(self) -> None:
        """Should this process die of a fatal signal from now on, leave a note; unless its faults are told elsewhere already."""
        if not faulthandler.is_enabled():
            faulthandler.enable(self._fd, all_threads=False)
            self._is_writer = True

    def end(self) -> None:
        """To be called before the file is closed."""
        if self._is_writer:
            faulthandler.disable()
            self._is_writer = False

    def tell_of_index(self) -> bool:
        """Whether a process died while it worked on the index. Notes of other deaths are logged, and removed."""
        text = os.pread(self._fd, _MOST_NOTES, 0).decode(errors="replace")
        if _is_of_index(text):
            return True
        if text:
            _log.warning("a process that used the store was killed by a fault: %s", " ".join(text.split())[:1000])
            self.clear()
        return False

    def clear(self) -> None:
        os.ftruncate(self._fd, 0)
