"""Response: the answer to a call, as header fields, messages and trailers, or as trailers only."""

from __future__ import annotations

from tvix_store.asgi import DisconnectedError, Event, Send
from tvix_store.rpc.framing import ENCODINGS, frame, gzip_frame, prefix
from tvix_store.rpc.method import Answer, Call
from tvix_store.rpc.status import RpcError, status_fields
from tvix_store.traffic import LARGE, Place

_CONTENT_TYPE = (b"content-type", b"application/grpc")
_OK = (b"grpc-status", b"0")
# The events of plain answers are made once: to make them anew takes a tenth of the time of a short call.
_START: Event = {"type": "http.response.start", "status": 200, "headers": [_CONTENT_TYPE], "trailers": True}
_END: Event = {"type": "http.response.trailers", "headers": [_OK]}
_SHORT = 4096
"""Bytes of answers that need no place."""
_BEGUN = 1 << 20
"""Bytes that a call keeps which has just begun to answer."""
_JOINED = 32 << 10
"""Bytes of data that are copied behind their header: an event more would take longer."""
_END_OF_BODY: Event = {"type": "http.response.body"}


class Response:
    """Sends the answers to one call. `compressed`: with gzip, as the caller does.

    Raises:
        DisconnectedError: (all methods) nobody is there to read it.
    """

    __slots__ = ("_call", "_frame", "_send", "_sent", "_started")

    def __init__(self, call: Call, send: Send, *, compressed: bool) -> None:
        self._call = call
        self._send = send
        self._frame = gzip_frame if compressed else frame
        self._started = False
        self._sent = 0

    async def message(self, message: Answer, place: Place | None = None, *, last: bool = False) -> None:
        """Send an answer; behind the last one, `end` is all that may follow. `place` is for messages that the caller does not take
        soon.

        Raises:
            ExhaustedError: there is no room for it.
        """
        if place is not None:
            await self._keep(message, place)
        try:
            if not self._started:
                await self._start()
            if isinstance(message, bytes):
                body = self._frame(message)
            elif self._frame is gzip_frame:
                body = gzip_frame(b"".join(message))
            else:
                head, body = message
                head = prefix(len(head) + len(body)) + head
                if len(body) <= _JOINED:
                    body = head + body
                else:
                    await self._send({"type": "http.response.body", "body": head, "more_body": True})
            await self._send({"type": "http.response.body", "body": body, "more_body": not last})
        except OSError:
            raise DisconnectedError from None
        if place is not None:
            place.works()

    async def _keep(self, message: Answer, place: Place) -> None:
        size = len(message) if isinstance(message, bytes) else len(message[0]) + len(message[1])
        self._sent += size
        if self._sent > _SHORT:
            # Beside the message, what its maker keeps to go on with.
            size = max(size, LARGE if self._sent > LARGE else _BEGUN)
            await place.hold(size, kept=min(size, _BEGUN))
            place.waits()

    async def end(self, *, body_ended: bool = False) -> None:
        """All went well. `body_ended`: the last message was said to be it."""
        try:
            if not self._started:
                await self._start()
            if not body_ended:
                await self._send(_END_OF_BODY)
            trailers = self._call.trailers
            await self._send({"type": "http.response.trailers", "headers": [_OK, *trailers]} if trailers else _END)
        except OSError:
            raise DisconnectedError from None

    async def fail(self, error: RpcError) -> None:
        """The call ends with a status other than OK."""
        fields = [*status_fields(error), *self._call.trailers]
        try:
            # Some clients take everything in a response without messages for trailers: header fields must come before, then.
            if not self._started and self._call.answer_headers:
                await self._start()
            if self._started:
                await self._send(_END_OF_BODY)
                await self._send({"type": "http.response.trailers", "headers": fields})
            else:
                headers = [_CONTENT_TYPE, (b"grpc-accept-encoding", ENCODINGS), *fields]
                await self._send({"type": "http.response.start", "status": 200, "headers": headers})
                await self._send(_END_OF_BODY)
        except OSError:
            raise DisconnectedError from None

    async def _start(self) -> None:
        self._started = True
        if self._frame is frame and not self._call.answer_headers:
            await self._send(_START)
            return
        encoding = [(b"grpc-encoding", b"gzip")] if self._frame is gzip_frame else []
        await self._send({**_START, "headers": [_CONTENT_TYPE, *encoding, *self._call.answer_headers]})
