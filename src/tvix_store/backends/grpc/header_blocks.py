"""HeaderBlocks: header fields from the frames that carry them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from tvix_store.backends.grpc.frames import END_HEADERS, END_STREAM, PRIORITY, Kind, ProtocolError, without_padding
from tvix_store.backends.grpc.hpack import HeaderDecoder

_LARGEST = 64 << 10
"""Bytes of the largest block that we take."""
_PRIORITY_SIZE = 5


class _Block(NamedTuple):
    stream: int
    flags: int
    data: bytes


class Fields(NamedTuple):
    """Header fields that have come for a stream; the `last` ones end it."""

    stream: int
    fields: Mapping[bytes, bytes]
    last: bool


class HeaderBlocks:
    """Takes frames HEADERS and CONTINUATION. `unfinished` says that nothing but a CONTINUATION may come."""

    def __init__(self) -> None:
        self._decoder = HeaderDecoder()
        self._begun: _Block | None = None

    @property
    def unfinished(self) -> bool:
        return self._begun is not None

    def add(self, kind: int, flags: int, stream: int, payload: bytes) -> Fields | None:
        """Take the next frame; the fields that it completes.

        Raises:
            ProtocolError: it does not fit the one before, or there is too much.
            HeaderError: the block cannot be read.
        """
        begun = self._begun
        if kind == Kind.HEADERS:
            data = without_padding(flags, payload)
            block = _Block(stream, flags, data[_PRIORITY_SIZE:] if flags & PRIORITY else data)
        elif begun is None or begun.stream != stream or not payload:
            raise ProtocolError("a header block goes on that has not begun")
        else:
            block = _Block(stream, begun.flags | flags & END_HEADERS, begun.data + payload)
        if len(block.data) > _LARGEST:
            raise ProtocolError(f"header fields of more than {_LARGEST} bytes")
        if not block.flags & END_HEADERS:
            self._begun = block
            return None
        self._begun = None
        return Fields(stream, self._decoder.decode(block.data), bool(block.flags & END_STREAM))
