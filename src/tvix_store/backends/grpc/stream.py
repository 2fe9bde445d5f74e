"""Stream: one call on a connection, as its caller sees it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Protocol

from tvix_store.backends.grpc.call_error import CallError, ending
from tvix_store.backends.grpc.envelopes import Envelopes, enveloped
from tvix_store.protocol.status import Status

WINDOW = 4 << 20
"""Bytes of an answer that may be on their way, or wait for their reader."""
_GRPC = b"application/grpc"


class Wire(Protocol):
    """The part of a connection that a stream needs."""

    async def send(self, stream: Stream, data: bytes, *, last: bool) -> None:
        """Send data of a call, as fast as the server takes it; no more of it once the call has ended."""
        ...

    def taken(self, stream: Stream, size: int) -> None:
        """So many more bytes may come."""
        ...

    def leave(self, stream: Stream) -> None:
        """Nobody wants the call any more."""
        ...


class Stream:
    """A call that has begun. Close it when it is not wanted any more."""

    def __init__(self, wire: Wire, number: int, send_window: int) -> None:
        self.number = number
        self.send_window = send_window
        self.head: Mapping[bytes, bytes] | None = None
        self.ended = False
        """The answer is at its end, or breaks off."""
        self.over = False
        """The server has sent its last frame."""
        self.sent_all = False
        self.waiting = 0
        """Bytes of the answer that wait for their reader."""
        self._error: CallError | None = None
        self._wire = wire
        self._data: list[bytes] = []
        self._waiter: asyncio.Future[None] | None = None
        self._envelopes = Envelopes()

    async def send(self, message: bytes, *, last: bool = False) -> bool:
        """Send a message; whether the server may want another.

        Returns before it has been sent if the call has ended.
        """
        if self.ended:
            return False
        await self._wire.send(self, enveloped(message), last=last)
        return not self.ended

    async def finish(self) -> None:
        """There are no more messages to send."""
        if not self.ended:
            await self._wire.send(self, b"", last=True)

    async def messages(self) -> list[bytes]:
        """The messages that have come, at least one, as soon as there is one; none at the end.

        Raises:
            CallError: the call has ended with another status than OK.
        """
        while True:
            if self._data:
                raw = b"".join(self._data) if len(self._data) > 1 else self._data[0]
                self._data.clear()
                self.waiting = 0
                self._wire.taken(self, len(raw))
                found = self._envelopes.feed(raw)
                if found:
                    return found
            elif self.ended:
                if self._error is not None:
                    raise self._error
                if self._envelopes.is_inside:
                    raise CallError(Status.INTERNAL, "the answer ends in the middle of a message")
                return []
            else:
                self._waiter = asyncio.get_running_loop().create_future()
                await self._waiter

    def close(self) -> None:
        """The call is not wanted any more, unless it is over."""
        self._data.clear()
        self._wire.leave(self)

    # What the connection tells.

    def got_data(self, data: bytes) -> None:
        self._data.append(data)
        self.waiting += len(data)
        self._wake()

    def got_head(self, fields: Mapping[bytes, bytes]) -> None:
        """The first header fields. Those that tell how the call has ended, or are not gRPC's, end the answer too."""
        self.head = fields
        kind = fields.get(b"content-type", _GRPC)
        if b"grpc-status" in fields or fields.get(b":status") != b"200":
            self.got_end(fields)
        elif not kind.startswith(_GRPC):
            words = f"the server answered with {kind.decode('latin-1')[:100]!r}; does it speak gRPC?"
            self.got_error(CallError(Status.UNKNOWN, words))

    def got_end(self, fields: Mapping[bytes, bytes]) -> None:
        """The last header fields, which may be the first too."""
        self._end(ending(fields, fields if self.head is None else self.head))

    def got_error(self, error: CallError) -> None:
        """The answer breaks off."""
        self._end(error)

    def _end(self, error: CallError | None) -> None:
        if not self.ended:
            self.ended = True
            self._error = error
            self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
