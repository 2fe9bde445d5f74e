"""The answers to calls over Connect: to a unary call one body, to others a stream of messages with an end of its own.

Source: connectrpc.com/docs/protocol.
"""

from __future__ import annotations

from tvix_store.asgi import DisconnectedError, Event, Send
from tvix_store.protocol import connect
from tvix_store.rpc.framing import framed, gzipped, pieces_of
from tvix_store.rpc.method import Answer, Call, Fields
from tvix_store.rpc.response import Response
from tvix_store.rpc.status import RpcError
from tvix_store.traffic import Place

NO_STORE = (b"cache-control", b"no-store")
"""For answers that may be others the next time."""
_PUBLIC = (b"cache-control", b"public, max-age=31536000, immutable")
_PRIVATE = (b"cache-control", b"private, max-age=31536000, immutable")
"""A year, the longest time that caches heed. Source: RFC 8246. The second one is for callers that have shown who they are: others
may be allowed less. Source: RFC 9111, section 3.5."""
_GZIP = b"gzip"


class UnaryResponse(Response):
    """Sends one answer as a body, or an error as JSON with an HTTP status.

    `immutable`: Whether caches may keep the answer.
    """

    __slots__ = ("_immutable",)

    def __init__(self, call: Call, send: Send, *, compressed: bool, immutable: bool) -> None:
        super().__init__(call, send, compressed=compressed)
        self._immutable = immutable

    async def message(self, message: Answer, place: Place | None = None, *, last: bool = False) -> None:
        del last  # there is but one
        if place is not None:
            await self._keep(message, place)
        body = message if isinstance(message, bytes) else b"".join(message)
        encoding = []
        if self._compressed:
            body = gzipped(body)
            encoding.append((b"content-encoding", _GZIP))
        caching = (_PRIVATE if self._call.grant.name else _PUBLIC) if self._immutable else NO_STORE
        await self._send_body(200, connect.UNARY, body, [caching, *encoding])
        if place is not None:
            place.works()

    async def end(self, *, body_ended: bool = False) -> None:
        del body_ended  # always, with the answer

    async def fail(self, error: RpcError) -> None:
        if self._started:  # the time was over while the caller did not take the answer; to break off is all that is left
            raise DisconnectedError
        body = connect.encode_error(error.status, error.message, error.details)
        await self._send_body(connect.http_status(error.status), "application/json", body, [NO_STORE])

    async def _send_body(self, status: int, content_type: str, body: bytes, fields: Fields) -> None:
        headers = [
            (b"content-type", content_type.encode()),
            (b"content-length", b"%d" % len(body)),
            *fields,
            *self._call.answer_headers,
            *((b"trailer-" + name, value) for name, value in self._call.trailers),
        ]
        self._started = True
        await send_to_caller(self._send, {"type": "http.response.start", "status": status, "headers": headers})
        await send_to_caller(self._send, {"type": "http.response.body", "body": body})


class StreamResponse(Response):
    """Sends answers as messages, and then a message that tells of an error, or of none."""

    __slots__ = ()

    async def message(self, message: Answer, place: Place | None = None, *, last: bool = False) -> None:
        del last  # the end follows
        if place is not None:
            await self._keep(message, place)
        await self._start()
        if isinstance(message, bytes):
            body = framed(message, compressed=self._compressed)
        else:
            head, body = pieces_of(message, compressed=self._compressed)
            if head:
                await send_to_caller(self._send, _piece(head))
        await send_to_caller(self._send, _piece(body))
        if place is not None:
            place.works()

    async def end(self, *, body_ended: bool = False) -> None:
        del body_ended
        await self._end(None)

    async def fail(self, error: RpcError) -> None:
        await self._end(error)

    async def _start(self) -> None:
        if self._started:
            return
        self._started = True
        headers = [(b"content-type", connect.STREAM.encode()), NO_STORE]
        if self._compressed:
            headers.append((b"connect-content-encoding", _GZIP))
        headers += self._call.answer_headers
        await send_to_caller(self._send, {"type": "http.response.start", "status": 200, "headers": headers})

    async def _end(self, error: RpcError | None) -> None:
        await self._start()
        told = None if error is None else (error.status, error.message, error.details)
        end = connect.encode_end(told, self._call.trailers)
        body = b"%c%b%b" % (connect.END, len(end).to_bytes(4), end)
        await send_to_caller(self._send, {"type": "http.response.body", "body": body})


def _piece(body: bytes) -> Event:
    return {"type": "http.response.body", "body": body, "more_body": True}


async def send_to_caller(send: Send, event: Event) -> None:
    """Send a part of the answer.

    Raises:
        DisconnectedError: nobody is there to read it.
    """
    try:
        await send(event)
    except OSError:
        raise DisconnectedError from None
