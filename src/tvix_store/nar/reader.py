"""NarReader: the bytes of a NAR in, events out, as they come."""

from __future__ import annotations

from tvix_store.errors import InvalidError
from tvix_store.model.names import MAX_NAME, MAX_TARGET, check_name, check_target, show
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

MAX_DEPTH = 64
"""Most nodes inside each other: the root and 63 below it, as Nix reads since 2026 (`narMaxDepth` in src/libutil)."""
MAX_ENTRIES = 10_000_000
"""Most entries of an archive, all directories together. Nix has no such limit; a consumer keeps something for each entry."""

_MORE = -1
"""The answer of a step whose piece is not whole yet."""
_PADDING = "the padding of a string is not zero"
_FILE_END = FileEnd()
_DIRECTORY_START = DirectoryStart()
_DIRECTORY_END = DirectoryEnd()
_ENTRY_END = EntryEnd()


class NarReader:
    """Reads one archive, however it is cut, and accepts exactly what NarWriter writes.

    Contents of files are handed on as they come. Between calls, one incomplete piece is kept: less than 4 KiB and 200 bytes.
    After an error the reader is of no further use.
    """

    def __init__(self, *, max_depth: int = MAX_DEPTH, max_entries: int = MAX_ENTRIES) -> None:
        self._max_depth = max_depth
        self._max_entries = max_entries
        self._entries = 0
        # Reads the next piece of `data` from `at`, appends its events, and answers the position behind it, or _MORE.
        self._step = self._magic
        self._rest = b""
        self._offset = 0
        self._size = 0
        self._missing = 0
        # The name of the last entry of each open directory; b"" sorts before every name.
        self._last_names: list[bytes] = []

    @property
    def contents_left(self) -> int:
        """Bytes that are still to come of the file that is being read."""
        return self._missing

    def feed(self, data: bytes) -> list[Event]:
        """The events that are complete with `data`, the next bytes of the archive.

        Raises:
            InvalidError: the archive breaks a rule; the error names the rule and the byte (from 0) where that shows.
        """
        if self._rest:
            data = self._rest + data
        events: list[Event] = []
        at, end = 0, len(data)
        try:
            while at < end:
                after = self._step(data, at, events)
                if after == _MORE:
                    break
                at = after
        except InvalidError:
            self._step = self._after_an_error
            raise
        self._rest = data[at:]
        self._offset += at
        return events

    def finish(self) -> None:
        """No more bytes.

        Raises:
            InvalidError: the archive is cut short, or had an error.
        """
        if self._step != self._end:
            raise self._error(len(self._rest), "the archive is cut short")

    def _magic(self, data: bytes, at: int, events: list[Event]) -> int:
        if not data.startswith(tokens.MAGIC, at):
            return self._wait_or_refuse(data, at, tokens.MAGIC)
        self._step = self._node
        return at + len(tokens.MAGIC)

    def _node(self, data: bytes, at: int, events: list[Event]) -> int:
        if len(self._last_names) >= self._max_depth:
            raise self._error(at, f"more than {self._max_depth} nodes are inside each other")
        if data.startswith(tokens.PLAIN_HEAD, at):
            return self._file_start(data, at + len(tokens.PLAIN_HEAD), False, events)
        if data.startswith(tokens.DIRECTORY_START, at):
            events.append(_DIRECTORY_START)
            self._last_names.append(b"")
            self._step = self._entry_start_or_directory_end
            return at + len(tokens.DIRECTORY_START)
        if data.startswith(tokens.EXECUTABLE_HEAD, at):
            return self._file_start(data, at + len(tokens.EXECUTABLE_HEAD), True, events)
        if data.startswith(tokens.SYMLINK_HEAD, at):
            return self._symlink(data, at + len(tokens.SYMLINK_HEAD), events)
        return self._wait_or_refuse(
            data, at, tokens.PLAIN_HEAD, tokens.EXECUTABLE_HEAD, tokens.SYMLINK_HEAD, tokens.DIRECTORY_START
        )

    def _file_start(self, data: bytes, at: int, executable: bool, events: list[Event]) -> int:
        after = at + 8
        if len(data) < after:
            return _MORE
        self._size = self._missing = size = int.from_bytes(data[at:after], "little")
        events.append(FileStart(size, executable))
        self._step = self._contents if size else self._file_end
        return after

    def _contents(self, data: bytes, at: int, events: list[Event]) -> int:
        piece = data[at : at + self._missing]
        events.append(FileData(piece))
        self._missing -= len(piece)
        if not self._missing:
            self._step = self._file_end
        return at + len(piece)

    def _file_end(self, data: bytes, at: int, events: list[Event]) -> int:
        closing = tokens.FILE_ENDS[self._size & 7]
        if data.startswith(closing, at):
            events.append(_FILE_END)
            self._node_is_complete()
            return at + len(closing)
        close = at + -self._size % 8
        self._check_padding(data, at, close)
        return self._wait_or_refuse(data, close, tokens.CLOSE)

    def _symlink(self, data: bytes, at: int, events: list[Event]) -> int:
        target, after = self._string(data, at, "a symlink's target", MAX_TARGET)
        if after == _MORE:
            return _MORE
        try:
            check_target(target)
        except InvalidError as error:
            raise self._error(at, str(error)) from None
        if not data.startswith(tokens.CLOSE, after):
            return self._wait_or_refuse(data, after, tokens.CLOSE)
        events.append(Symlink(target))
        self._node_is_complete()
        return after + len(tokens.CLOSE)

    def _entry_start_or_directory_end(self, data: bytes, at: int, events: list[Event]) -> int:
        if data.startswith(tokens.ENTRY_HEAD, at):
            return self._entry_start(data, at + len(tokens.ENTRY_HEAD), events)
        if data.startswith(tokens.DIRECTORY_END, at):
            events.append(_DIRECTORY_END)
            self._last_names.pop()
            self._node_is_complete()
            return at + len(tokens.DIRECTORY_END)
        return self._wait_or_refuse(data, at, tokens.ENTRY_HEAD, tokens.DIRECTORY_END)

    def _entry_start(self, data: bytes, at: int, events: list[Event]) -> int:
        name, after = self._string(data, at, "an entry's name", MAX_NAME)
        if after == _MORE:
            return _MORE
        try:
            check_name(name)
        except InvalidError as error:
            raise self._error(at, str(error)) from None
        last = self._last_names[-1]
        if name <= last:
            problem = "is there twice" if name == last else f"stands behind {show(last)}: not sorted by name"
            raise self._error(at, f"entry {show(name)} {problem}")
        if self._entries == self._max_entries:
            raise self._error(at, f"there are more than {self._max_entries} entries")
        if not data.startswith(tokens.ENTRY_NODE, after):
            return self._wait_or_refuse(data, after, tokens.ENTRY_NODE)
        self._entries += 1
        self._last_names[-1] = name
        events.append(EntryStart(name))
        self._step = self._node
        return after + len(tokens.ENTRY_NODE)

    def _entry_end(self, data: bytes, at: int, events: list[Event]) -> int:
        if not data.startswith(tokens.ENTRY_END, at):
            return self._wait_or_refuse(data, at, tokens.ENTRY_END)
        events.append(_ENTRY_END)
        self._step = self._entry_start_or_directory_end
        return at + len(tokens.ENTRY_END)

    def _end(self, data: bytes, at: int, events: list[Event]) -> int:
        raise self._error(at, "bytes follow behind the end of the archive")

    def _after_an_error(self, data: bytes, at: int, events: list[Event]) -> int:
        raise self._error(at, "the archive was refused before")

    def _node_is_complete(self) -> None:
        self._step = self._entry_end if self._last_names else self._end

    def _string(self, data: bytes, at: int, what: str, limit: int) -> tuple[bytes, int]:
        """The string at `at` and the position behind its padding, or _MORE for that."""
        start = at + 8
        if len(data) < start:
            return b"", _MORE
        size = int.from_bytes(data[at:start], "little")
        if size > limit:
            raise self._error(at, f"{what} is {size} bytes long, more than {limit}")
        end = start + size
        after = end + -size % 8
        if len(data) < after:
            return b"", _MORE
        self._check_padding(data, end, after)
        return data[start:end], after

    def _check_padding(self, data: bytes, start: int, end: int) -> None:
        for at, byte in enumerate(data[start:end], start):
            if byte:
                raise self._error(at, _PADDING)

    def _wait_or_refuse(self, data: bytes, at: int, *literals: bytes) -> int:
        """_MORE if the bytes so far begin one of `literals`."""
        got = data[at : at + max(map(len, literals))]
        if any(literal.startswith(got) for literal in literals):
            return _MORE
        reached, best = max((_agreement(literal, got), literal) for literal in literals)
        start, word = _word_around(best, reached)
        if reached >= start + 8 + len(word):
            raise self._error(at + reached, _PADDING)
        words = (_word_around(literal, _agreement(literal, got)) for literal in literals)
        expected = sorted({repr(word.decode()) for where, word in words if where == start})
        raise self._error(at + start, f"expected {' or '.join(expected)}")

    def _error(self, at: int, message: str) -> InvalidError:
        return InvalidError(f"NAR: at byte {self._offset + at}: {message}")


def _agreement(literal: bytes, got: bytes) -> int:
    """How many bytes `got` has in common with the beginning of `literal`."""
    return next((n for n, (a, b) in enumerate(zip(literal, got, strict=False)) if a != b), min(len(literal), len(got)))


def _word_around(literal: bytes, position: int) -> tuple[int, bytes]:
    """The string of `literal` that holds the byte at `position`, and where it begins."""
    start = 0
    while True:
        end = start + 8 + int.from_bytes(literal[start : start + 8], "little")
        after = end + -end % 8
        if position < after:
            return start, literal[start + 8 : end]
        start = after
