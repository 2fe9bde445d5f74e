"""HTTP/2 by hand, for what no client does: announce and not send, ask and not read. Source: RFC 9113, RFC 7541."""

from __future__ import annotations

import select
import socket
import struct
from collections.abc import Iterable

DATA, HEADERS, RESET, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
_END_STREAM, _END_HEADERS, _ACK = 1, 4, 1
_FRAME = 16384


class RawHttp2:
    """A connection on which every stream's answers have a window of `window` bytes, and none is ever made larger."""

    def __init__(self, port: int, window: int = 65535) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), 30)
        settings = struct.pack(">HI", 4, window)
        self._socket.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _frame(SETTINGS, 0, 0, settings))
        self._unread = b""
        self._next_stream = 1
        self._room: dict[int, int] = {}
        """What may be sent, by stream; 0 is the connection."""
        self._stream_window = 65535
        self._room[0] = 65535
        self.ended: dict[int, bytes] = {}
        """Streams that the server has ended, with what it said last."""
        self.is_closed = False
        while not any(kind == SETTINGS for kind, *_ in self.read(10)):
            pass

    def close(self) -> None:
        self._socket.close()

    def request(self, method: str, path: str, headers: Iterable[tuple[str, str]] = (), *, ends: bool = True) -> int:
        """Begin a request; its stream."""
        stream = self._next_stream
        self._next_stream += 2
        fields = [(":method", method), (":scheme", "http"), (":path", path), (":authority", "localhost"), *headers]
        block = b"".join(b"\0" + _text(name) + _text(value) for name, value in fields)
        self._room[stream] = self._stream_window
        self._socket.sendall(_frame(HEADERS, _END_HEADERS | (_END_STREAM if ends else 0), stream, block))
        return stream

    def call(self, path: str) -> int:
        """Begin a gRPC call; its stream."""
        return self.request("POST", path, [("content-type", "application/grpc"), ("te", "trailers")], ends=False)

    def send(self, stream: int, data: bytes, *, ends: bool = False) -> int:
        """Send as much of `data` as the windows have room for; how much that was."""
        sent = min(len(data), self._room[0], self._room.get(stream, 0))
        for at in range(0, sent, _FRAME):
            piece = data[at : min(at + _FRAME, sent)]
            is_last = ends and at + len(piece) == len(data)
            self._socket.sendall(_frame(DATA, _END_STREAM if is_last else 0, stream, piece))
        if ends and not data:
            self._socket.sendall(_frame(DATA, _END_STREAM, stream, b""))
        self._room[0] -= sent
        self._room[stream] = self._room.get(stream, 0) - sent
        return sent

    def read(self, timeout: float = 0) -> list[tuple[int, int, int, bytes]]:
        """The frames (type, flags, stream, payload) that came until nothing comes for `timeout` seconds."""
        frames = []
        while select.select([self._socket], [], [], timeout)[0]:
            try:
                data = self._socket.recv(1 << 16)
            except OSError:
                data = b""
            if not data:
                self.is_closed = True
                break
            self._unread += data
            frames += self._parsed()
            timeout = 0
        return frames

    def _parsed(self) -> list[tuple[int, int, int, bytes]]:
        frames = []
        while len(self._unread) >= 9:
            size = int.from_bytes(self._unread[:3])
            if len(self._unread) < 9 + size:
                break
            kind, flags, stream = self._unread[3], self._unread[4], int.from_bytes(self._unread[5:9])
            payload = self._unread[9 : 9 + size]
            self._unread = self._unread[9 + size :]
            self._take(kind, flags, stream, payload)
            frames.append((kind, flags, stream, payload))
        return frames

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == SETTINGS and not flags & _ACK:
            for key, value in struct.iter_unpack(">HI", payload):
                if key == 4:
                    self._stream_window = value
            self._socket.sendall(_frame(SETTINGS, _ACK, 0, b""))
        elif kind == WINDOW_UPDATE:
            self._room[stream] = self._room.get(stream, 0) + int.from_bytes(payload)
        elif kind == PING and not flags & _ACK:
            self._socket.sendall(_frame(PING, _ACK, 0, payload))
        elif kind == RESET or (kind in (HEADERS, DATA) and flags & _END_STREAM):
            self.ended[stream] = payload
            self._room.pop(stream, None)
        elif kind == GOAWAY:
            self.is_closed = True


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + payload


def _text(text: str) -> bytes:
    assert len(text) < 127
    return bytes([len(text)]) + text.encode()
