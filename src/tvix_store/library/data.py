"""Data: bytes as users have them, made the stream of pieces that services take."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from typing import Protocol, TypeAlias, TypeVar, runtime_checkable

from tvix_store.concurrency.cooperative import cooperatively
from tvix_store.concurrency.from_thread import from_thread
from tvix_store.errors import InvalidError

_PIECE = 256 << 10
"""Bytes that are read from a file at a time, or cut from bytes."""
T = TypeVar("T")


@runtime_checkable
class BinaryFile(Protocol):
    """A file that is open for reading bytes, or an object like one."""

    def read(self, size: int, /) -> bytes: ...


Data: TypeAlias = bytes | bytearray | memoryview | BinaryFile | Iterable[bytes] | AsyncIterable[bytes]
"""Bytes, an open file, or pieces from any iterable."""


def as_pieces(data: Data) -> AsyncIterable[bytes]:
    """The pieces of `data`. A file is read in threads, to its end; an iterable is walked on the event loop.

    Raises:
        InvalidError: it is none of these, such as a text or a path.
    """
    match data:
        case bytes() | bytearray() | memoryview():
            return as_stream(_cut(memoryview(data).cast("B")))
        case AsyncIterable():
            return data
        case str():
            raise InvalidError("expected bytes, not a text: encode it first, as in text.encode()")
    if isinstance(data, BinaryFile):
        return from_thread(_read(data))
    if isinstance(data, Iterable):
        return as_stream(data)
    raise InvalidError(f"expected bytes, an open file or an iterable of bytes, not {type(data).__name__}")


def as_stream(items: Iterable[T] | AsyncIterable[T]) -> AsyncIterator[T]:
    """The items of any iterable, as a stream."""
    return aiter(items) if isinstance(items, AsyncIterable) else cooperatively(items)


def _cut(data: memoryview) -> Iterator[bytes]:
    return (bytes(data[at : at + _PIECE]) for at in range(0, len(data), _PIECE))


def _read(file: BinaryFile) -> Iterator[bytes]:
    while piece := file.read(_PIECE):
        if not isinstance(piece, bytes):
            raise InvalidError(f"the file gives {type(piece).__name__}, not bytes: open it with mode 'rb'")
        yield piece
