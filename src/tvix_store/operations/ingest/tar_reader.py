"""TarReader: the members of a tar archive, as they come: POSIX ustar and pax, the archives of GNU tar, and those of Unix 7.

It is not Python's `tarfile`. That one reads an extended header of any size at once, keeps every member, and takes a damaged header
for the end of the archive. The tests hold it against `tarfile` and GNU's `tar`.
Formats: POSIX.1-2017, "pax"; GNU tar, "Basic Tar Format".
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from tvix_store.errors import ExhaustedError, InvalidError
from tvix_store.model.names import show

BLOCK = 512
MAX_HEADERS = 4_000_000
"""Most headers of an archive: those of members, and those that extend them, up to three for a member."""
MAX_EXTENSION = 1 << 20
"""Most bytes of a header that extends another one: a path, the target of a symlink, and attributes that are left out."""
MAX_SIZE = 1 << 40
"""Most bytes of a file, as of a NAR."""
_PIECE = 1 << 20
_FILES = b"\x000 7"
"""The kinds of regular files; 7 is one that should lie in one piece on the disk."""
_REFUSED = {
    b"3": "a character device",
    b"4": "a block device",
    b"6": "a FIFO",
    b"S": "a sparse file; make the archive without --sparse",
    b"M": "a part of a file that another archive begins",
}


class Kind(Enum):
    """What a member is."""

    FILE = "a file"
    DIRECTORY = "a directory"
    SYMLINK = "a symlink"
    LINK = "a hard link"


@dataclass(frozen=True, slots=True)
class Member:
    """A member: its name as the archive has it, and for a link its target. `size` is that of a file's contents, in bytes."""

    kind: Kind
    name: bytes
    size: int = 0
    executable: bool = False
    target: bytes = b""


@dataclass(slots=True)
class _Extension:
    """What headers before a member say of it, in place of its own."""

    name: bytes | None = None
    target: bytes | None = None
    size: int | None = None
    sparse: bool = False


class TarReader:
    """Reads one archive from `pieces`. One piece, and one header, are kept at a time.

    Raises (by all methods):
        InvalidError: the archive is damaged or cut short, or has too many headers; or a member is of a kind that no store path has.
        ExhaustedError: a header or a file is too large.
    """

    def __init__(self, pieces: Iterator[bytes], *, max_headers: int = MAX_HEADERS) -> None:
        self._pieces = pieces
        self._piece = memoryview(b"")
        self._at = 0
        self._max_headers = max_headers
        self._headers = 0
        self._left = 0
        """Bytes of the contents of the last member that were not read."""
        self._padding = 0

    def members(self) -> Iterator[Member]:
        """The members in order. The contents of a file may be read, all or none, before the next one is asked for."""
        extension = _Extension()
        while (header := self._header()) is not None:
            kind, size = header[156:157], _number(header, 124, 12, self._at)
            if kind in (b"L", b"K", b"x", b"X", b"g"):
                self._extend(extension, kind, self._extended(size))
                continue
            name = _text(header, 0, 100)
            if header[257:263] == b"ustar\0" and (prefix := _text(header, 345, 155)):
                name = prefix + b"/" + name
            name = name if extension.name is None else extension.name
            target = _text(header, 157, 100) if extension.target is None else extension.target
            size = size if extension.size is None else extension.size
            kind = b"S" if extension.sparse else kind
            extension = _Extension()
            yield self._member(kind, name, target, size, executable=bool(_number(header, 100, 8, self._at) & 0o100))
        if extension != _Extension():
            raise InvalidError("the archive ends where its last header announces a member")

    def contents(self) -> Iterator[bytes]:
        """The contents of the last member, in pieces of up to 1 MiB."""
        while self._left:
            piece = self._some(min(self._left, _PIECE))
            self._left -= len(piece)
            yield piece

    def _member(self, kind: bytes, name: bytes, target: bytes, size: int, *, executable: bool) -> Member:
        if kind == b"5" or (kind in _FILES and name.endswith(b"/")):
            return Member(Kind.DIRECTORY, name)
        if kind == b"1":
            return Member(Kind.LINK, name, target=target)
        if kind == b"2":
            return Member(Kind.SYMLINK, name, target=target)
        if kind not in _FILES:
            raise InvalidError(f"entry {show(name)} is {_REFUSED.get(kind, f'of the unknown kind {show(kind)}')}")
        if size > MAX_SIZE:
            raise ExhaustedError(f"entry {show(name)} has {size} bytes; a file has at most {MAX_SIZE}")
        self._left, self._padding = size, -size % BLOCK
        return Member(Kind.FILE, name, size, executable)

    def _header(self) -> bytes | None:
        """The next header; None for the end of the archive, behind which nothing is."""
        for _ in self.contents():
            pass
        self._take(self._padding)
        self._padding = 0
        header = self._take(BLOCK)
        if header == bytes(BLOCK):
            self._check_end()
            return None
        self._headers += 1
        if self._headers > self._max_headers:
            raise InvalidError(f"the archive has more than {self._max_headers} headers")
        if not is_header(header):
            at = self._at - BLOCK
            raise InvalidError(f"the archive is damaged, or no tar: the header at byte {at} does not match its checksum")
        return header

    def _extended(self, size: int) -> bytes:
        if size > MAX_EXTENSION:
            raise ExhaustedError(f"the extended header at byte {self._at} has {size} bytes; at most {MAX_EXTENSION} are taken")
        data = self._take(size)
        self._take(-size % BLOCK)
        return data

    def _extend(self, extension: _Extension, kind: bytes, data: bytes) -> None:
        match kind:
            case b"L":
                extension.name = data.partition(b"\0")[0]
            case b"K":
                extension.target = data.partition(b"\0")[0]
            case _:
                for keyword, value in _records(data, self._at):
                    if kind == b"g" and keyword in (b"path", b"linkpath", b"size"):
                        raise InvalidError(f"the global header before byte {self._at} sets the {keyword.decode()} of all entries")
                    if keyword == b"path":
                        extension.name = value or None
                    elif keyword == b"linkpath":
                        extension.target = value or None
                    elif keyword == b"size":
                        extension.size = _decimal(value, self._at)
                    elif keyword.startswith(b"GNU.sparse."):
                        extension.sparse = True

    def _take(self, size: int) -> bytes:
        """Exactly `size` bytes."""
        taken = bytearray()
        while len(taken) < size:
            taken += self._some(size - len(taken))
        return bytes(taken)

    def _some(self, most: int) -> bytes:
        while not self._piece:
            piece = next(self._pieces, None)
            if piece is None:
                raise InvalidError(f"the archive is cut short: it ends at byte {self._at}")
            self._piece = memoryview(piece)
        some, self._piece = self._piece[:most], self._piece[most:]
        self._at += len(some)
        return bytes(some)

    def _check_end(self) -> None:
        """Programs fill the last block of their own size with zeros."""
        while True:
            if self._piece.tobytes().count(0) != len(self._piece):
                raise InvalidError(f"the archive goes on behind its end, at byte {self._at} or later")
            self._at += len(self._piece)
            piece = next(self._pieces, None)
            if piece is None:
                return
            self._piece = memoryview(piece)


def is_header(block: bytes) -> bool:
    """Whether a block of 512 bytes matches the checksum in it, as a header does."""
    try:
        stated = _number(block, 148, 8, 0)
    except InvalidError:
        return False
    others = block[:148] + b" " * 8 + block[156:BLOCK]
    if len(block) < BLOCK:
        return False
    return stated == sum(others) or stated == sum(byte - (byte & 128) * 2 for byte in others)  # the latter by programs of old


def _text(header: bytes, start: int, size: int) -> bytes:
    return header[start : start + size].partition(b"\0")[0]


def _number(header: bytes, start: int, size: int, at: int) -> int:
    """An octal number; or a binary one (of GNU), whose first bit is set."""
    field = header[start : start + size]
    if field[:1] == b"\x80":
        return int.from_bytes(field[1:], "big")
    digits = field.strip(b" \0")
    if digits.strip(b"01234567"):
        raise InvalidError(f"the archive is damaged: the header before byte {at} has the number {show(digits)}")
    return int(digits or b"0", 8)


def _decimal(digits: bytes, at: int) -> int:
    if not digits.isdigit() or len(digits) > 20:
        raise InvalidError(f"the archive is damaged: the extended header before byte {at} has the number {show(digits)}")
    return int(digits)


def _records(data: bytes, at: int) -> Iterator[tuple[bytes, bytes]]:
    """Keywords and values of pax: records of `<length> <keyword>=<value>` and a newline."""
    begin = 0
    while begin < len(data):
        space = data.find(b" ", begin, begin + 20)
        end = begin + _decimal(data[begin : max(space, begin)], at)
        keyword, equals, value = data[space + 1 : end - 1].partition(b"=")
        if not equals or data[end - 1 : end] != b"\n" or end > len(data):
            raise InvalidError(f"the archive is damaged: the extended header before byte {at} has a record without an end")
        yield keyword, value
        begin = end
