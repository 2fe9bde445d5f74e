"""ConnectApp: calls over plain HTTP, in the Connect protocol, as an ASGI application.

Source: connectrpc.com/docs/protocol.
"""

from __future__ import annotations

from collections.abc import Coroutine, Mapping
from typing import Any

from tvix_store.asgi import App, DisconnectedError, Event, Receive, Send, drained, grant_of, is_http1
from tvix_store.protocol import connect
from tvix_store.rpc.arrival import Arrival
from tvix_store.rpc.bare_message import Bare
from tvix_store.rpc.calls import Calls, LostCallerError
from tvix_store.rpc.connect_query import message_of_query
from tvix_store.rpc.connect_response import NO_STORE, StreamResponse, UnaryResponse, send_to_caller
from tvix_store.rpc.deadline import seconds_of_milliseconds
from tvix_store.rpc.framing import Enveloped
from tvix_store.rpc.method import Call, Method, Streaming, Unary
from tvix_store.rpc.response import Response
from tvix_store.rpc.status import RpcError

_PREFIX = f"{connect.PREFIX}/"
_UNARY = connect.UNARY.encode()
_STREAM = connect.STREAM.encode()
_STREAM_ENCODING = "connect-content-encoding"
_REST = 64 << 20
"""Most bytes of a request that are taken behind an early answer, over HTTP/1.1. Then the connection is closed."""
_REST_TIME = 5.0
"""Seconds in which they are taken."""
_SEEN = 1.0
"""Seconds in which the engine sees that a connection is at its end."""


class ConnectApp:
    """Serves `calls` by the paths of their methods behind `/rpc/v1`. Other paths go to `fallback`, another ASGI application."""

    def __init__(self, calls: Calls, fallback: App) -> None:
        self._calls = calls
        self._fallback = fallback

    def __call__(self, scope: Event, receive: Receive, send: Send) -> Coroutine[Any, Any, None]:
        if not scope["path"].startswith(_PREFIX):
            return self._fallback(scope, receive, send)
        return self._serve(scope, _Body(scope, receive), send)

    async def _serve(self, scope: Event, body: _Body, send: Send) -> None:
        """Answer a request, and see to its end."""
        client = scope.get("client")
        try:
            await self._answer(scope, body, send)
            if body.has_rest and not await drained(body.receive, _REST, _REST_TIME):
                # The engine would wait for the rest without an end. Cut off, it has to be told so by the rest of the body.
                self._calls.traffic.hang_up(client)
                await drained(body.receive, _REST, _SEEN)
        except LostCallerError:
            if is_http1(scope):  # the engine has no clock for such a caller
                self._calls.traffic.hang_up(client)
        except DisconnectedError:
            return

    async def _answer(self, scope: Event, body: _Body, send: Send) -> None:
        path = scope["path"][len(connect.PREFIX) :]
        method = self._calls.methods.get(path)
        if method is None:
            await _refuse(send, 404, f"unknown method {path}", [])
            return
        headers: dict[bytes, bytes] = dict(scope["headers"])
        call = Call(path, scope["headers"], scope.get("client"), grant_of(scope))
        is_get = scope["method"] == "GET"
        if is_get and isinstance(method, Unary) and method.takes.immutable:
            await self._get(method, call, headers, scope["query_string"], send)
        elif scope["method"] != "POST":
            known = b"GET, POST" if method.takes.immutable and isinstance(method, Unary) else b"POST"
            await _refuse(send, 405, f"{path} takes {known.decode()}", [(b"allow", known)])
        else:
            await self._post(method, call, headers, body.receive, send)

    async def _post(self, method: Method, call: Call, headers: Mapping[bytes, bytes], receive: Receive, send: Send) -> None:
        known = _content_types(method)
        content_type = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
        if content_type not in known:
            types = b", ".join(known)
            await _refuse(send, 415, f"{call.path} takes the content type {types.decode()}", [(b"accept-post", types)])
        elif content_type == _UNARY:
            encoding = headers.get(b"content-encoding", b"identity")
            compressed = _is_gzip_wanted(encoding, headers.get(b"accept-encoding"))
            response: Response = UnaryResponse(call, send, compressed=compressed, immutable=False)
            length = headers.get(b"content-length", b"")
            framing = Bare(encoding, int(length) if length.isdigit() else None)
            await self._calls.answer(method, call, _arrival(headers, receive, framing), response)
        else:
            encoding = headers.get(_STREAM_ENCODING.encode(), b"identity")
            compressed = _is_gzip_wanted(encoding, headers.get(b"connect-accept-encoding"))
            response = StreamResponse(call, send, compressed=compressed)
            await self._calls.answer(method, call, _arrival(headers, receive, Enveloped(encoding, _STREAM_ENCODING)), response)

    async def _get(self, method: Method, call: Call, headers: Mapping[bytes, bytes], query: bytes, send: Send) -> None:
        # Never compressed: so an answer depends on its URL alone, and a cache may keep it without a look at header fields.
        response = UnaryResponse(call, send, compressed=False, immutable=True)
        try:
            found = message_of_query(query)
        except RpcError as error:
            await response.fail(error)
            return
        if found is None:
            await _refuse(send, 415, f"{call.path} takes encoding=proto", [])
            return
        message, encoding = found

        async def receive() -> Event:
            return {"type": "http.request", "body": message}

        await self._calls.answer(method, call, _arrival(headers, receive, Bare(encoding, len(message))), response)


class _Body:
    """The body of a request: gives its events, and knows whether more of it may come."""

    def __init__(self, scope: Event, receive: Receive) -> None:
        self._scope = scope
        self._receive = receive
        self._ended = False

    async def receive(self) -> Event:
        event = await self._receive()
        self._ended = not event.get("more_body")
        return event

    @property
    def has_rest(self) -> bool:
        """Whether more of the body may come over HTTP/1.1."""
        fields = {name for name, _ in self._scope["headers"]}
        return not self._ended and is_http1(self._scope) and not fields.isdisjoint((b"content-length", b"transfer-encoding"))


def _content_types(method: Method) -> tuple[bytes, ...]:
    match method:
        case Unary():
            return (_UNARY,)
        case Streaming() if method.one_answer:
            # One message is a stream too. A dialect declares such a method as unary, and lets its clients send several messages.
            return _STREAM, _UNARY
        case _:
            return (_STREAM,)


def _arrival(headers: Mapping[bytes, bytes], receive: Receive, framing: Bare | Enveloped) -> Arrival:
    return Arrival(receive, framing, headers.get(b"connect-timeout-ms"), seconds_of_milliseconds)


def _is_gzip_wanted(encoding: bytes, accepted: bytes | None) -> bool:
    """Whether answers are compressed: as the request is, if the caller accepts that.

    A caller that sends no list of encodings accepts the one of its request.
    """
    return encoding == b"gzip" and (accepted is None or b"gzip" in accepted)


async def _refuse(send: Send, status: int, line: str, fields: list[tuple[bytes, bytes]]) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8"), NO_STORE, *fields]
    await send_to_caller(send, {"type": "http.response.start", "status": status, "headers": headers})
    await send_to_caller(send, {"type": "http.response.body", "body": line.encode(errors="replace") + b"\n"})
