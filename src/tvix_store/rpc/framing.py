"""Messages on a stream: one byte of flags, a length of 4 bytes (big-endian), the message. Compression is gzip or none.

Source: grpc.io, PROTOCOL-HTTP2. The streams of Connect are the same (connectrpc.com/docs/protocol).
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from tvix_store.errors import ExhaustedError
from tvix_store.rpc.status import RpcError, Status

PREFIX = 5
"""Bytes before each message."""
ENCODINGS = b"identity,gzip"
"""The compressions that we read and write, for `grpc-accept-encoding`."""
_JOINED = 32 << 10
"""Bytes of data that are copied behind their header: an event more would take longer."""
_MAX_PIECES = 512
"""How many pieces of a message are kept as they came; each is an object of some 300 bytes.

Joining the pieces once, at the end, is fastest, and 4 MiB come in half as many. But where a message comes byte by byte, the
objects would take 90 times the memory of its bytes."""
_GZIP_WINDOW = 31
"""zlib's way to say: a gzip header and trailer, largest window."""


def frame(message: bytes) -> bytes:
    """`message` as it goes on the stream."""
    return b"\0%b%b" % (len(message).to_bytes(4), message)


def gzipped(message: bytes) -> bytes:
    """`message`, compressed. Level 1: the caller wants the bytes, not the CPU, spared, but soon."""
    return gzip.compress(message, compresslevel=1, mtime=0)


def gzip_frame(message: bytes) -> bytes:
    """`message`, compressed, as it goes on the stream."""
    body = gzipped(message)
    return b"\1%b%b" % (len(body).to_bytes(4), body)


def framed(message: bytes, *, compressed: bool) -> bytes:
    """`message` as it goes on the stream."""
    return gzip_frame(message) if compressed else frame(message)


def pieces_of(answer: tuple[bytes, bytes], *, compressed: bool) -> tuple[bytes, bytes]:
    """A message in two parts as it goes on the stream, also in two: the first is empty where they are better joined."""
    if compressed:
        return b"", gzip_frame(b"".join(answer))
    head, data = answer
    head = b"\0%b%b" % ((len(head) + len(data)).to_bytes(4), head)
    return (b"", head + data) if len(data) <= _JOINED else (head, data)


def check_encoding(encoding: bytes, field: str) -> None:
    """Raise RpcError (UNIMPLEMENTED) if `encoding`, the value of the header field `field`, is none that we read."""
    if encoding not in (b"identity", b"gzip"):
        raise RpcError(Status.UNIMPLEMENTED, f"{field} {encoding.decode('latin-1')!r} is unknown; use {ENCODINGS.decode()}")


def gunzip(data: bytes, limit: int) -> bytes:
    """The content of `data`, one gzip stream.

    Raises:
        ExhaustedError: it has more than `limit` bytes.
        RpcError: (INTERNAL) `data` is no such stream.
    """
    stream = zlib.decompressobj(_GZIP_WINDOW)
    try:
        message = stream.decompress(data, limit + 1)
    except zlib.error as error:
        raise RpcError(Status.INTERNAL, f"a message is not gzip: {error}") from None
    if len(message) > limit:
        raise ExhaustedError(f"a message is over the limit of {limit} bytes for this method when decompressed")
    if not stream.eof or stream.unused_data:
        raise RpcError(Status.INTERNAL, "a message is not one whole gzip stream")
    return message


class Frames:
    """Takes a stream's bytes as they come, and gives its messages.

    `limit` bounds a message in bytes, as sent and as decompressed; it is checked before a byte of the message is kept.
    `encoding` is the value of the header field `field`.

    Raises:
        RpcError: (UNIMPLEMENTED) the encoding is unknown.
    """

    def __init__(self, limit: int, encoding: bytes = b"identity", field: str = "grpc-encoding") -> None:
        check_encoding(encoding, field)
        self._limit = limit
        self._field = field
        self._gzip = encoding == b"gzip"
        self._prefix = b""
        self._gathered = bytearray()
        """The begin of the message; `_pieces` follow."""
        self._pieces: list[memoryview] = []
        self._missing = 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Take the next bytes of the stream; the messages that they complete.

        Raises:
            ExhaustedError: a message is larger than the limit.
            RpcError: (INTERNAL) the bytes are no stream of messages.
        """
        rest = memoryview(data)
        while rest:
            if len(self._prefix) < PREFIX:
                wanted = PREFIX - len(self._prefix)
                self._prefix += rest[:wanted]
                rest = rest[wanted:]
                if len(self._prefix) < PREFIX:
                    return
                self._missing = self._announced()
            piece = rest[: self._missing]
            rest = rest[self._missing :]
            self._missing -= len(piece)
            self._pieces.append(piece)
            if not self._missing:
                yield self._complete()
            elif len(self._pieces) == _MAX_PIECES:
                self._gathered += b"".join(self._pieces)
                self._pieces.clear()

    @property
    def under_way(self) -> int:
        """Bytes of the message that has begun and not ended, as announced; 0 where there is none."""
        return int.from_bytes(self._prefix[1:]) if len(self._prefix) == PREFIX else 0

    def finish(self) -> Iterator[bytes]:
        """The stream is at its end. No message is completed by that.

        Raises:
            RpcError: (INTERNAL) in the middle of a message.
        """
        if self._prefix:
            raise RpcError(Status.INTERNAL, "the stream of messages ends in the middle of one")
        return iter(())

    def _announced(self) -> int:
        """The length in the prefix, checked."""
        flags, size = self._prefix[0], int.from_bytes(self._prefix[1:])
        if flags > 1 or (flags and not self._gzip):
            raise RpcError(Status.INTERNAL, f"a message has flags {flags:#04x}, which {self._field} does not explain")
        if size > self._limit:
            raise ExhaustedError(f"a message of {size} bytes is over the limit of {self._limit} for this method")
        return size

    def _complete(self) -> bytes:
        message = b"".join((self._gathered, *self._pieces))
        if self._prefix[0]:
            message = gunzip(message, self._limit)
        self._prefix = b""
        self._gathered = bytearray()
        self._pieces = []
        return message


@dataclass(frozen=True, slots=True)
class Enveloped:
    """The framing of a stream's messages; `encoding` is the value of the header field `field`."""

    encoding: bytes = b"identity"
    field: str = "grpc-encoding"

    @property
    def is_gzip(self) -> bool:
        return self.encoding == b"gzip"

    def whole(self, body: bytes, limit: int) -> bytes | None:
        if self.encoding != b"identity" or body[:1] != b"\0" or not len(body) - PREFIX == int.from_bytes(body[1:PREFIX]) <= limit:
            return None
        return body[PREFIX:]

    def begin(self, limit: int) -> Frames:
        return Frames(limit, self.encoding, self.field)
