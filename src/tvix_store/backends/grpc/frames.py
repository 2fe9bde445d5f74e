"""Frames of HTTP/2 (RFC 9113): their forms, and the end of a connection that breaks a rule."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from enum import IntEnum

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEAD = 9
"""Bytes before each frame's payload: its length, kind, flags and stream."""
LARGEST_PAYLOAD = 1 << 14
"""Bytes of the largest payload that we take; the least that everybody must take."""
DEFAULT_WINDOW = 65_535
LARGEST_WINDOW = (1 << 31) - 1

END_STREAM = 0x1
ACK = 0x1
END_HEADERS = 0x4
PADDED = 0x8
PRIORITY = 0x20


class Kind(IntEnum):
    """Kinds of frames."""

    DATA = 0
    HEADERS = 1
    PRIORITY = 2
    RST_STREAM = 3
    SETTINGS = 4
    PUSH_PROMISE = 5
    PING = 6
    GOAWAY = 7
    WINDOW_UPDATE = 8
    CONTINUATION = 9


class Setting(IntEnum):
    """Settings that one end tells the other."""

    HEADER_TABLE_SIZE = 1
    ENABLE_PUSH = 2
    MAX_CONCURRENT_STREAMS = 3
    INITIAL_WINDOW_SIZE = 4
    MAX_FRAME_SIZE = 5


class Reset(IntEnum):
    """Why a stream or a connection is ended."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    FLOW_CONTROL_ERROR = 3
    SETTINGS_TIMEOUT = 4
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    CONNECT_ERROR = 10
    ENHANCE_YOUR_CALM = 11
    INADEQUATE_SECURITY = 12
    HTTP_1_1_REQUIRED = 13


class ProtocolError(Exception):
    """The other end breaks a rule of HTTP/2."""


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """A frame as it goes over the wire."""
    return len(payload).to_bytes(3) + bytes((kind, flags)) + stream.to_bytes(4) + payload


def data_head(size: int, stream: int, *, last: bool) -> bytes:
    """The header before `size` bytes of data."""
    return size.to_bytes(3) + (b"\0\1" if last else b"\0\0") + stream.to_bytes(4)


def settings(values: Iterable[tuple[Setting, int]]) -> bytes:
    """A frame SETTINGS."""
    return frame(Kind.SETTINGS, 0, 0, b"".join(struct.pack(">HI", setting, value) for setting, value in values))


def read_settings(payload: bytes) -> Iterable[tuple[int, int]]:
    """The numbers and values in a frame SETTINGS.

    Raises:
        ProtocolError: it is cut short.
    """
    if len(payload) % 6:
        raise ProtocolError("a frame SETTINGS is cut short")
    return struct.iter_unpack(">HI", payload)


def window_update(stream: int, size: int) -> bytes:
    """A frame WINDOW_UPDATE: `size` more bytes may come."""
    return frame(Kind.WINDOW_UPDATE, 0, stream, size.to_bytes(4))


def reset(stream: int, why: Reset) -> bytes:
    """A frame RST_STREAM."""
    return frame(Kind.RST_STREAM, 0, stream, why.to_bytes(4))


def without_padding(flags: int, payload: bytes) -> bytes:
    """The payload of a frame DATA or HEADERS alone.

    Raises:
        ProtocolError: it is shorter than its padding.
    """
    if not flags & PADDED:
        return payload
    if not payload or payload[0] >= len(payload):
        raise ProtocolError("a frame is shorter than its padding")
    return payload[1 : len(payload) - payload[0]]
