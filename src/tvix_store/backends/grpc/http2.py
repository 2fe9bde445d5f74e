"""Http2: one connection to a server, and the calls on it.

Bytes of an answer wait for their reader, up to WINDOW for each call. The window of the connection is opened again as they come. So
a reader that is slow holds back its own call only.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import cast

from tvix_store.backends.grpc.call_error import CallError, reset_by_server
from tvix_store.backends.grpc.frame_writer import SENT_AT_ONCE, FrameWriter
from tvix_store.backends.grpc.frames import (
    ACK,
    DEFAULT_WINDOW,
    END_HEADERS,
    END_STREAM,
    HEAD,
    LARGEST_PAYLOAD,
    LARGEST_WINDOW,
    PREFACE,
    Kind,
    ProtocolError,
    Reset,
    Setting,
    data_head,
    frame,
    read_settings,
    reset,
    settings,
    window_update,
    without_padding,
)
from tvix_store.backends.grpc.header_blocks import HeaderBlocks
from tvix_store.backends.grpc.hpack import HeaderError, encode_headers
from tvix_store.backends.grpc.stream import WINDOW, Stream
from tvix_store.protocol.status import Status

_CONNECTION_WINDOW = 64 << 20
_LARGEST_SENT = 1 << 16
"""Bytes of data in a frame that we send, where the server takes that many."""
_SILENCE = 310.0
"""Seconds without a word from the server after which it is asked whether it is there. Servers close a connection that asks oftener
than every 5 minutes."""
_PATIENCE = 20.0
"""Seconds for the answer."""
_LAST_STREAM = (1 << 31) - 1


class Http2(asyncio.Protocol):
    """A connection. `ready` is done when the server's settings have come. Calls may begin then, while the connection is
    `usable`."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.ready: asyncio.Future[None] = loop.create_future()
        self._loop = loop
        self._writer = FrameWriter(loop, self.abort)
        self._write = self._writer.write
        self._streams: dict[int, Stream] = {}
        self._next = 1
        self._buffer = b""
        self._blocks = HeaderBlocks()
        self._closed: CallError | None = None
        self._lost = asyncio.Event()
        self._going_away = False
        self._received = 0
        """Bytes since the connection's window was opened last."""
        self._untold: dict[int, int] = {}
        """Bytes that readers have taken since their stream's window was opened last."""
        self._send_window = DEFAULT_WINDOW
        self._initial_window = DEFAULT_WINDOW
        self._largest_frame = LARGEST_PAYLOAD
        self._most_streams = LARGEST_WINDOW
        self._changes: list[asyncio.Future[None]] = []
        """Callers that wait for a window, a place, or the transport."""
        self._heard = loop.time()
        self._watch: asyncio.TimerHandle | None = loop.call_later(_SILENCE, self._look)

    @property
    def usable(self) -> bool:
        """Whether calls may begin."""
        return self._closed is None and not self._going_away

    async def call(self, fields: Iterable[tuple[bytes, bytes]]) -> Stream:
        """Begin a call with the header fields `fields`.

        Raises:
            CallError: (UNAVAILABLE) the connection is closed, or going to be.
        """
        while self.usable and len(self._streams) >= self._most_streams:
            await self._changed()
        if not self.usable:
            raise self._closed or CallError(Status.UNAVAILABLE, "the server is going away")
        stream = Stream(self, self._next, self._initial_window)
        self._next += 2
        self._going_away = self._next > _LAST_STREAM
        self._streams[stream.number] = stream
        self._write(frame(Kind.HEADERS, END_HEADERS, stream.number, encode_headers(fields)))
        return stream

    async def send(self, stream: Stream, data: bytes, *, last: bool) -> None:
        view = memoryview(data)
        while not stream.ended:
            size = min(len(view), self._send_window, stream.send_window, SENT_AT_ONCE)
            if not self._writer.may_write or (size <= 0 < len(view)):
                await self._changed()
                continue
            parts: list[bytes | memoryview] = []
            rest = view[:size]
            view = view[size:]
            while True:
                piece = rest[: self._largest_frame]
                rest = rest[self._largest_frame :]
                stream.sent_all = last and not rest and not view
                parts += data_head(len(piece), stream.number, last=stream.sent_all), piece
                if not rest:
                    break
            self._send_window -= size
            stream.send_window -= size
            self._write(*parts)
            if not view:
                return

    def taken(self, stream: Stream, size: int) -> None:
        untold = self._untold.get(stream.number, 0) + size
        if untold >= WINDOW // 2 and not stream.ended:
            self._write(window_update(stream.number, untold))
            untold = 0
        self._untold[stream.number] = untold

    def leave(self, stream: Stream) -> None:
        self._untold.pop(stream.number, None)
        if self._streams.pop(stream.number, None) is None:
            return
        if not (stream.over and stream.sent_all):
            self._write(reset(stream.number, Reset.CANCEL))
        self._tell_changes()

    async def close(self) -> None:
        """End the connection, with all that is on it."""
        self.abort(CallError(Status.UNAVAILABLE, "the connection was closed"))
        if self._writer.transport is not None:
            await self._lost.wait()

    # What the transport tells.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._writer.transport = cast("asyncio.Transport", transport)
        own = ((Setting.HEADER_TABLE_SIZE, 0), (Setting.ENABLE_PUSH, 0), (Setting.INITIAL_WINDOW_SIZE, WINDOW))
        self._write(PREFACE + settings(own) + window_update(0, _CONNECTION_WINDOW - DEFAULT_WINDOW))

    def data_received(self, data: bytes) -> None:
        self._heard = self._loop.time()
        try:
            self._buffer = self._frames(self._buffer + data if self._buffer else data)
        except (ProtocolError, HeaderError) as error:
            self._write(frame(Kind.GOAWAY, 0, 0, bytes(4) + Reset.PROTOCOL_ERROR.to_bytes(4)))
            self.abort(CallError(Status.UNAVAILABLE, f"the server does not speak HTTP/2 as it should: {error}"))
            return
        if self._received >= _CONNECTION_WINDOW // 4:
            self._write(window_update(0, self._received))
            self._received = 0

    def eof_received(self) -> None:
        self.abort(CallError(Status.UNAVAILABLE, "the server closed the connection"))

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost.set()
        self.abort(CallError(Status.UNAVAILABLE, f"the connection broke: {exc}" if exc else "the server closed the connection"))

    def pause_writing(self) -> None:
        self._writer.may_write = False

    def resume_writing(self) -> None:
        self._writer.may_write = True
        self._tell_changes()

    # What the server tells.

    def _frames(self, data: bytes) -> bytes:
        """Take the frames in `data`. The rest is the beginning of one."""
        at, end = 0, len(data)
        while end - at >= HEAD:
            size = int.from_bytes(data[at : at + 3])
            if not self.ready.done() and data.startswith(b"HTTP/1"):
                raise ProtocolError("it answers in HTTP/1; is this its port for gRPC, and is it to be grpc+https?")
            if size > LARGEST_PAYLOAD:
                raise ProtocolError(f"a frame of {size} bytes, over the limit of {LARGEST_PAYLOAD}")
            stop = at + HEAD + size
            if stop > end:
                break
            number = int.from_bytes(data[at + 5 : at + HEAD]) & LARGEST_WINDOW
            self._frame(data[at + 3], data[at + 4], number, data[at + HEAD : stop])
            at = stop
        return data[at:]

    def _frame(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        if not self.ready.done() and kind != Kind.SETTINGS:
            raise ProtocolError("it does not begin with SETTINGS")
        if self._blocks.unfinished and kind != Kind.CONTINUATION:
            raise ProtocolError("a header block breaks off")
        if kind == Kind.DATA:
            self._received += len(payload)
            stream = self._streams.get(number)
            if stream is not None:
                stream.over = bool(flags & END_STREAM)
                if not stream.ended:
                    self._data(stream, flags, payload)
        elif kind in {Kind.HEADERS, Kind.CONTINUATION}:
            self._headers(kind, flags, number, payload)
        elif kind == Kind.RST_STREAM:
            stream = self._streams.get(number)
            if stream is not None:
                stream.got_error(reset_by_server(int.from_bytes(payload)))
                stream.over = stream.sent_all = True
                self._tell_changes()
        elif kind == Kind.SETTINGS:
            self._settings(flags, payload)
        elif kind == Kind.PING and not flags & ACK:
            self._write(frame(Kind.PING, ACK, 0, payload))
        elif kind == Kind.WINDOW_UPDATE:
            self._window_update(number, int.from_bytes(payload) & LARGEST_WINDOW)
        elif kind == Kind.GOAWAY:
            self._go_away(int.from_bytes(payload[:4]) & LARGEST_WINDOW, payload[8:])
        elif kind == Kind.PUSH_PROMISE:
            raise ProtocolError("a pushed answer, which nobody has asked for")

    def _data(self, stream: Stream, flags: int, payload: bytes) -> None:
        data = without_padding(flags, payload)
        if len(payload) > len(data):
            self.taken(stream, len(payload) - len(data))
        if stream.head is None:
            raise ProtocolError("data before header fields")
        if data:
            stream.got_data(data)
        if stream.waiting > WINDOW:
            raise ProtocolError("more data than was let in")
        if flags & END_STREAM:
            stream.got_end({})
            self._tell_changes()

    def _headers(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        found = self._blocks.add(kind, flags, number, payload)
        stream = self._streams.get(number)
        if found is not None and stream is not None and not stream.ended:
            self._fields(stream, found.fields, last=found.last)

    def _fields(self, stream: Stream, fields: Mapping[bytes, bytes], *, last: bool) -> None:
        if last:
            stream.over = True
            stream.got_end(fields)
            self._tell_changes()
        elif stream.head is None:
            if not fields.get(b":status", b"").startswith(b"1"):
                stream.got_head(fields)
        else:
            raise ProtocolError("header fields in the middle of an answer")

    def _settings(self, flags: int, payload: bytes) -> None:
        if flags & ACK:
            return
        for setting, value in read_settings(payload):
            if setting == Setting.INITIAL_WINDOW_SIZE:
                if value > LARGEST_WINDOW:
                    raise ProtocolError("a window that is too large")
                for stream in self._streams.values():
                    stream.send_window += value - self._initial_window
                self._initial_window = value
            elif setting == Setting.MAX_FRAME_SIZE:
                self._largest_frame = max(LARGEST_PAYLOAD, min(value, _LARGEST_SENT))
            elif setting == Setting.MAX_CONCURRENT_STREAMS:
                self._most_streams = value
        self._write(frame(Kind.SETTINGS, ACK, 0))
        if not self.ready.done():
            self.ready.set_result(None)
        self._tell_changes()

    def _window_update(self, number: int, size: int) -> None:
        if number == 0:
            self._send_window += size
            if self._send_window > LARGEST_WINDOW:
                raise ProtocolError("a window that is too large")
        elif number in self._streams:
            self._streams[number].send_window += size
        self._tell_changes()

    def _go_away(self, last: int, text: bytes) -> None:
        """The server takes no more calls; those up to `last` may still be answered."""
        self._going_away = True
        words = text[:200].decode(errors="replace")
        error = CallError(Status.UNAVAILABLE, f"the server is going away{': ' if words else ''}{words}")
        for number, stream in self._streams.items():
            if number > last:
                stream.got_error(error)
        self._tell_changes()

    async def _changed(self) -> None:
        """Wait until a window, a place or the transport may have become free."""
        waiter: asyncio.Future[None] = self._loop.create_future()
        self._changes.append(waiter)
        await waiter

    def _tell_changes(self) -> None:
        if self._going_away and not self._streams and self._closed is None:
            self.abort(CallError(Status.UNAVAILABLE, "the server is going away"))
        waiting, self._changes = self._changes, []
        for waiter in waiting:
            if not waiter.done():
                waiter.set_result(None)

    def abort(self, error: CallError) -> None:
        """End the connection, and all that is on it with `error`."""
        if self._closed is not None:
            return
        self._closed = error
        if self._watch is not None:
            self._watch.cancel()
        if not self.ready.done():
            self.ready.set_exception(error)
            self.ready.exception()  # perhaps nobody else looks at it
        for stream in self._streams.values():
            stream.got_error(error)
        self._streams.clear()
        self._tell_changes()
        self._writer.close()

    def _look(self) -> None:
        """See from time to time whether the server is there, while it owes an answer."""
        silence = self._loop.time() - self._heard
        if silence < _SILENCE or not self._streams:
            self._watch = self._loop.call_later(max(_PATIENCE, _SILENCE - silence), self._look)
            return
        if silence >= _SILENCE + _PATIENCE:
            self.abort(CallError(Status.UNAVAILABLE, f"nothing was heard of the server for {silence:.0f} seconds"))
            return
        self._write(frame(Kind.PING, 0, 0, bytes(8)))
        self._watch = self._loop.call_later(_PATIENCE, self._look)
