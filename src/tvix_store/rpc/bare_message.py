"""A message that is the whole body of a request, as in the unary calls of Connect."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tvix_store.errors import ExhaustedError
from tvix_store.rpc.framing import check_encoding, gunzip

_FIELD = "content-encoding"
_FEW = 4096
"""Bytes of a body without a length that say nothing of what follows."""


class BareMessage:
    """Takes a body's bytes as they come, and gives its message at the end.

    limit: Bytes of the largest message, as sent and as decompressed. It is checked before bytes are kept.
    encoding: The value of `content-encoding`.
    length: The value of `content-length` in bytes. None where there is none.

    Raises:
        RpcError: (UNIMPLEMENTED) the encoding is unknown.
        ExhaustedError: the message is announced to be larger than the limit.
    """

    def __init__(self, limit: int, encoding: bytes, length: int | None) -> None:
        check_encoding(encoding, _FIELD)
        self._limit = limit
        self._is_gzip = encoding == b"gzip"
        self._length = length
        self._gathered = bytearray()
        self._check(length or 0)

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Take the next bytes of the body. They complete no message.

        Raises:
            ExhaustedError: the message is larger than the limit.
        """
        self._check(len(self._gathered) + len(data))
        self._gathered += data
        return iter(())

    @property
    def under_way(self) -> int:
        """Bytes of the message, as announced. A body without a length may become as long as the limit."""
        if self._length is not None:
            return self._length
        came = len(self._gathered)
        return came if came <= _FEW else self._limit

    def finish(self) -> Iterator[bytes]:
        """The body is at its end: its message.

        Raises:
            ExhaustedError: it is larger than the limit when decompressed.
            RpcError: (INTERNAL) it is not gzip, as the encoding says.
        """
        message = bytes(self._gathered)
        self._gathered.clear()
        # Nothing at all is the empty message, in every encoding. Source: connectrpc.com/docs/protocol.
        yield gunzip(message, self._limit) if self._is_gzip and message else message

    def _check(self, size: int) -> None:
        if size > self._limit:
            raise ExhaustedError(f"a message of {size} bytes is over the limit of {self._limit} for this method")


@dataclass(frozen=True, slots=True)
class Bare:
    """The framing of a body that is one message; `encoding` and `length` as those of a BareMessage."""

    encoding: bytes
    length: int | None

    @property
    def is_gzip(self) -> bool:
        return self.encoding == b"gzip"

    def whole(self, body: bytes, limit: int) -> bytes | None:
        return body if self.encoding == b"identity" and len(body) <= limit else None

    def begin(self, limit: int) -> BareMessage:
        return BareMessage(limit, self.encoding, self.length)
