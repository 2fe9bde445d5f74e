"""The ASGI application: from a request to its handler."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Coroutine, Iterator, Mapping
from contextlib import aclosing, contextmanager
from dataclasses import replace
from math import inf
from typing import Any

from tvix_store.asgi import App, DisconnectedError, Event, Receive, Send
from tvix_store.errors import DeniedError
from tvix_store.rpc.deadline import within
from tvix_store.rpc.decoding import Decoder
from tvix_store.rpc.framing import PREFIX, Frames
from tvix_store.rpc.method import LOOKUP, Answer, Call, Method, ServerStreaming, Streaming, Takes, Unary, single
from tvix_store.rpc.response import Response
from tvix_store.rpc.status import RpcError, Status, rpc_error
from tvix_store.rpc.time_slices import TimeSlices
from tvix_store.traffic import SMALL, LostPlaceError, Place, Traffic

MAX_MESSAGE = 16 * 1024 * 1024
"""Default bound of one message in bytes, for all methods."""

_AT_ONCE = 4096
"""Bytes of a message that need no place."""
_DECODED = 8
"""Bytes of memory that a byte of a message takes when it is decoded: at most 7, in a list of chunks."""
_CONTENT_TYPES = (b"application/grpc", b"application/grpc+proto")


class GrpcApp:
    """Serves a table of methods by their full paths, `/package.Service/Method`.

    Requests that are not gRPC go to `fallback`, another ASGI application. `max_message` bounds one message in bytes, received or
    decompressed, beside the bound of its method. `read_only` refuses the methods that write. `traffic` bounds the memory that
    callers make the worker keep. When a caller goes away, the server cancels the task of its call, and nothing else is needed.
    """

    def __init__(
        self,
        methods: Mapping[str, Method],
        fallback: App,
        *,
        max_message: int = MAX_MESSAGE,
        read_only: bool = False,
        traffic: Traffic | None = None,
    ) -> None:
        self.methods = {
            path: replace(method, takes=replace(method.takes, max_message=min(method.takes.max_message, max_message)))
            for path, method in methods.items()
        }
        self._fallback = fallback
        self._read_only = read_only
        self._traffic = traffic or Traffic()
        self._decoder = Decoder()
        self._slices = TimeSlices()

    def __call__(self, scope: Event, receive: Receive, send: Send) -> Coroutine[Any, Any, None]:
        if scope["type"] == "websocket":
            return _refuse_websocket(send)
        if scope["method"] == "GET" and scope["path"] not in self.methods:
            return self._fallback(scope, receive, send)  # most requests of a cache, and gRPC is POST alone
        headers: dict[bytes, bytes] = dict(scope["headers"])
        content_type = headers.get(b"content-type", b"")
        method = self.methods.get(scope["path"])
        if not _is_grpc(content_type):
            if method is None and not content_type.startswith(b"application/grpc"):
                return self._fallback(scope, receive, send)
            return _unsupported_media_type(send)
        if scope["method"] != "POST":
            return _unsupported_media_type(send)
        return self._call(method, Call(scope["path"], scope["headers"], scope.get("client")), headers, receive, send)

    async def _call(self, method: Method | None, call: Call, headers: Mapping[bytes, bytes], receive: Receive, send: Send) -> None:
        encoding = headers.get(b"grpc-encoding", b"identity")
        response = Response(call, send, compressed=encoding == b"gzip")
        try:
            try:
                await within(headers.get(b"grpc-timeout"), self._handle(method, call, encoding, receive, response))
            except DisconnectedError:
                raise
            except Exception as error:  # noqa: BLE001 - every error becomes a status; rpc_error logs the unforeseen
                await response.fail(rpc_error(error))
        except DisconnectedError:
            return

    async def _handle(self, method: Method | None, call: Call, encoding: bytes, receive: Receive, response: Response) -> None:
        if self._read_only and method is not None and method.takes.writes:
            raise DeniedError("this store is read-only")
        match method:
            case Unary():
                await self._unary(method, call, encoding, receive, response)
            case ServerStreaming():
                await self._server_stream(method, call, encoding, receive, response)
            case Streaming():
                await self._stream(method, call, encoding, receive, response)
            case None:
                raise RpcError(Status.UNIMPLEMENTED, f"unknown method {call.path}")

    async def _unary(self, method: Unary, call: Call, encoding: bytes, receive: Receive, response: Response) -> None:
        event = await _first(receive)
        if (message := _whole(event, encoding, method.takes)) is not None:
            request = await self._decoder.decoded(method.takes.decode, message)
            answer = await method.handle(request, call)
        else:
            with self._traffic.incoming.place(call.client) as arriving:
                request = await single(self._requests(method.takes, encoding, receive, event, arriving, single=True))
                answer = await method.handle(request, call)
        if len(answer) <= SMALL:
            await response.message(answer, last=True)
        else:
            with self._leaving(call) as leaving:
                await response.message(answer, leaving, last=True)
        await response.end(body_ended=True)

    async def _server_stream(
        self, method: ServerStreaming, call: Call, encoding: bytes, receive: Receive, response: Response
    ) -> None:
        event = await _first(receive)
        if (message := _whole(event, encoding, method.takes)) is not None:
            request = await self._decoder.decoded(method.takes.decode, message)
            await self._send_all(method.handle(request, call), call, response)
        else:
            with self._traffic.incoming.place(call.client) as arriving:
                request = await single(self._requests(method.takes, encoding, receive, event, arriving, single=True))
                await self._send_all(method.handle(request, call), call, response)

    async def _send_all(self, answers: AsyncGenerator[Answer, None], call: Call, response: Response) -> None:
        with self._leaving(call) as leaving:
            async with aclosing(answers):
                async for answer in answers:
                    if self._slices.is_over():
                        await self._slices.next()
                    await response.message(answer, leaving)
        await response.end()

    async def _stream(self, method: Streaming, call: Call, encoding: bytes, receive: Receive, response: Response) -> None:
        with self._leaving(call) as leaving, self._traffic.incoming.place(call.client) as arriving:
            async with (
                aclosing(self._requests(method.takes, encoding, receive, await receive(), arriving, single=False)) as requests,
                aclosing(method.handle(requests, call)) as answers,
            ):
                async for answer in answers:
                    if self._slices.is_over():
                        await self._slices.next()
                    if not arriving.held:
                        await response.message(answer, leaving)
                        continue
                    arriving.waits()  # for who has sent it to take this
                    await response.message(answer, leaving)
                    arriving.works()
        await response.end()

    @contextmanager
    def _leaving(self, call: Call) -> Iterator[Place]:
        """A place for answers. A caller that does not take them gets no status either: it would not take that."""
        place = self._traffic.outgoing.place(call.client)
        try:
            with place:
                yield place
        except LostPlaceError:
            if place.is_lost:
                raise DisconnectedError from None
            raise

    async def _requests(
        self, takes: Takes, encoding: bytes, receive: Receive, event: Event, arriving: Place, *, single: bool
    ) -> AsyncGenerator[Any, None]:
        """The messages of a request whose first event is `event`, as the handler takes them.

        A message that comes in pieces has a place in `arriving` for its bytes. In a `single` request, the place covers the decoded
        message too, for as long as the caller keeps the place.
        """
        weight = _DECODED if single and takes.decode is not None else 1
        frames = Frames(takes.max_message, encoding)
        may_be_bombs = encoding == b"gzip" and takes.max_message > LOOKUP
        came = 0
        while True:
            if event["type"] == "http.disconnect":
                raise DisconnectedError
            body: bytes = event.get("body", b"")
            messages = frames.feed(body)
            while True:
                if self._slices.is_over():
                    await self._slices.next()
                message = await self._decoder.decompressed(messages) if may_be_bombs else next(messages, None)
                if message is None:
                    break
                arriving.works()
                if single and len(message) > _AT_ONCE:
                    await arriving.hold(len(message) * weight, kept=len(message))
                yield await self._decoder.decoded(takes.decode, message)
            if not event.get("more_body"):
                frames.finish()
                return
            size = frames.under_way
            if size > _AT_ONCE:
                await arriving.hold(size * weight)
                came += len(body)
                if came >= SMALL or arriving.since == inf:
                    came = 0
                    arriving.waits()
            elif single:
                if arriving.since == inf:
                    arriving.waits()  # for the end
            else:
                arriving.works()
                arriving.hold_at_most(0)
            event = await receive()


async def _first(receive: Receive) -> Event:
    """The first event, and the next one where the first is short: many clients say in an event of its own that no messages follow."""
    event = await receive()
    if not event.get("more_body") or len(event["body"]) > _AT_ONCE:
        return event
    end = await receive()
    return {**end, "body": event["body"] + end.get("body", b"")}


def _whole(event: Event, encoding: bytes, takes: Takes) -> bytes | None:
    """The message of a request that is small and came in one piece, as of nearly every call with a single message."""
    body: bytes = event.get("body", b"")
    if (
        event.get("more_body")
        or encoding != b"identity"
        or body[:1] != b"\0"
        or not len(body) - PREFIX == int.from_bytes(body[1:PREFIX]) <= min(takes.max_message, _AT_ONCE)
    ):
        return None
    return body[PREFIX:]


def _is_grpc(content_type: bytes) -> bool:
    if content_type in _CONTENT_TYPES or not content_type:
        return bool(content_type)
    return content_type.partition(b";")[0].rstrip().lower() in _CONTENT_TYPES


async def _refuse_websocket(send: Send) -> None:
    await send({"type": "websocket.close"})  # before it was accepted


async def _unsupported_media_type(send: Send) -> None:
    headers = [(b"content-type", b"text/plain"), (b"accept-post", b"application/grpc")]
    await send({"type": "http.response.start", "status": 415, "headers": headers})
    await send({"type": "http.response.body", "body": b"This path takes gRPC: POST with content-type application/grpc.\n"})


async def not_found(_scope: Event, _receive: Receive, send: Send) -> None:
    """A fallback that has nothing to offer."""
    await send({"type": "http.response.start", "status": 404, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": b"There is nothing here; this port speaks gRPC.\n"})
