"""NarWriter: events in, the bytes of a NAR out."""

from __future__ import annotations

from enum import Enum

from tvix_store.errors import InvalidError
from tvix_store.model.names import check_name, check_target, show
from tvix_store.model.wire import check_size
from tvix_store.nar import tokens
from tvix_store.nar.events import (
    DirectoryEnd,
    DirectoryStart,
    EntryEnd,
    EntryStart,
    Event,
    FileData,
    FileEnd,
    FileStart,
    Symlink,
)


class _Expects(Enum):
    """The event that may come next; the value is its name in messages."""

    NODE = "FileStart, Symlink or DirectoryStart"
    CONTENTS = "FileData or FileEnd"
    ENTRY = "EntryStart or DirectoryEnd"
    ENTRY_END = "EntryEnd"
    NOTHING = "nothing, the archive is complete"


_PLACES: dict[type[Event], _Expects] = {
    FileStart: _Expects.NODE,
    Symlink: _Expects.NODE,
    DirectoryStart: _Expects.NODE,
    FileData: _Expects.CONTENTS,
    FileEnd: _Expects.CONTENTS,
    EntryStart: _Expects.ENTRY,
    DirectoryEnd: _Expects.ENTRY,
    EntryEnd: _Expects.ENTRY_END,
}


class NarWriter:
    """Writes one archive.

    Send the events in the order of `nar.events`. The results of `send`, concatenated, are the NAR.
    After an error the writer is of no further use.
    """

    def __init__(self) -> None:
        self._expects = _Expects.NODE
        self._magic = tokens.MAGIC
        self._size = 0
        self._missing = 0
        # The name of the last entry of each open directory; b"" sorts before every name.
        self._last_names: list[bytes] = []

    def send(self, event: Event) -> bytes:
        """The bytes of `event`.

        Raises:
            InvalidError: the event may not come here, or one of these rules is broken. Entries are sorted. A file's contents have
                the size that its start states. Names and targets are valid.
        """
        if _PLACES[type(event)] is not self._expects:
            raise InvalidError(f"NAR writer: got {type(event).__name__}, expected {self._expects.value}")
        match event:
            case FileData(data):
                return self._file_data(data)
            case FileStart(size, executable):
                return self._file_start(size, executable)
            case FileEnd():
                return self._file_end()
            case EntryStart(name):
                return self._entry_start(name)
            case EntryEnd():
                self._expects = _Expects.ENTRY
                return tokens.ENTRY_END
            case Symlink(target):
                check_target(target)
                self._node_is_complete()
                return self._after_magic(tokens.symlink(target))
            case DirectoryStart():
                self._last_names.append(b"")
                self._expects = _Expects.ENTRY
                return self._after_magic(tokens.DIRECTORY_START)
            case DirectoryEnd():
                self._last_names.pop()
                self._node_is_complete()
                return tokens.DIRECTORY_END

    def finish(self) -> None:
        """No more events.

        Raises:
            InvalidError: the archive is not complete.
        """
        if self._expects is not _Expects.NOTHING:
            raise InvalidError(f"NAR writer: the archive is not complete, expected {self._expects.value}")

    def _file_start(self, size: int, executable: bool) -> bytes:
        check_size(size)
        self._size = self._missing = size
        self._expects = _Expects.CONTENTS
        return self._after_magic(tokens.file_start(size, executable))

    def _file_data(self, data: bytes) -> bytes:
        if len(data) > self._missing:
            raise InvalidError(
                f"NAR writer: {len(data) - self._missing} bytes more than the {self._size} that the file was to have"
            )
        self._missing -= len(data)
        return data

    def _file_end(self) -> bytes:
        if self._missing:
            raise InvalidError(f"NAR writer: {self._missing} of the file's {self._size} bytes are missing")
        self._node_is_complete()
        return tokens.file_end(self._size)

    def _entry_start(self, name: bytes) -> bytes:
        check_name(name)
        last = self._last_names[-1]
        if name <= last:
            problem = "is there twice" if name == last else f"stands behind {show(last)}: not sorted by name"
            raise InvalidError(f"NAR writer: entry {show(name)} {problem}")
        self._last_names[-1] = name
        self._expects = _Expects.NODE
        return tokens.entry_start(name)

    def _node_is_complete(self) -> None:
        self._expects = _Expects.ENTRY_END if self._last_names else _Expects.NOTHING

    def _after_magic(self, node: bytes) -> bytes:
        magic, self._magic = self._magic, b""
        return magic + node
