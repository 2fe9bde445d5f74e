"""Calls: the work of a call, the same for all protocols: limits, places in traffic, deadlines, time slices, statuses."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import replace
from math import inf
from typing import Any

from tvix_store.asgi import DisconnectedError, Event, Receive
from tvix_store.errors import DeniedError
from tvix_store.model.grant import Scope
from tvix_store.rpc.arrival import Arrival, Framing, Unframing
from tvix_store.rpc.deadline import within
from tvix_store.rpc.decoding import Decoder
from tvix_store.rpc.method import LOOKUP, Answer, Call, Method, ServerStreaming, Streaming, Takes, Unary, single
from tvix_store.rpc.response import Response
from tvix_store.rpc.status import RpcError, Status, rpc_error
from tvix_store.rpc.time_slices import TimeSlices
from tvix_store.telemetry import notes
from tvix_store.traffic import SMALL, LostPlaceError, Place, Traffic

_AT_ONCE = 4096
"""Bytes of a message that need no place."""
_DECODED = 8
"""Bytes of memory that a byte of a message takes when it is decoded: at most 7, in a list of chunks."""


class LostCallerError(DisconnectedError):
    """The caller is there, but did not take the answers, and others got its place."""


class Calls:
    """Answers calls of a table of methods by their full paths, `/package.Service/Method`.

    `max_message` bounds one message in bytes, received or decompressed, beside the bound of its method. `read_only` refuses the
    methods that write. `traffic` bounds the memory that callers make the worker keep. `private_places` are paths of directories
    that callers are not told of. When a caller goes away, the server cancels the task of its call, and nothing else is needed.
    """

    def __init__(
        self,
        methods: Mapping[str, Method],
        *,
        max_message: int,
        read_only: bool,
        traffic: Traffic,
        private_places: Sequence[str] = (),
    ) -> None:
        self.methods = {
            path: replace(method, takes=replace(method.takes, max_message=min(method.takes.max_message, max_message)))
            for path, method in methods.items()
        }
        self.traffic = traffic
        self._read_only = read_only
        self._private_places = private_places
        self._decoder = Decoder()
        self._slices = TimeSlices()

    async def answer(self, method: Method | None, call: Call, arrival: Arrival, response: Response) -> None:
        """Answer a call, well or with a status.

        Raises:
            DisconnectedError: nobody is there to read the answer.
        """
        try:
            await within(arrival.timeout, self._handle(method, call, arrival, response), arrival.seconds)
        except DisconnectedError:
            raise
        except Exception as error:  # noqa: BLE001 - every error becomes a status; rpc_error logs the unforeseen
            told = rpc_error(error, self._private_places)
            if (noted := notes.current.get()) is not None:
                noted.failed = told.status.name
            await response.fail(told)

    async def _handle(self, method: Method | None, call: Call, arrival: Arrival, response: Response) -> None:
        call.grant.require(Scope.PULL if method is None else method.takes.needs)
        if self._read_only and method is not None and method.takes.writes:
            raise DeniedError("this store is read-only")
        match method:
            case Unary():
                await self._unary(method, call, arrival, response)
            case ServerStreaming():
                await self._server_stream(method, call, arrival, response)
            case Streaming():
                await self._stream(method, call, arrival, response)
            case None:
                raise RpcError(Status.UNIMPLEMENTED, f"unknown method {call.path}")

    async def _unary(self, method: Unary, call: Call, arrival: Arrival, response: Response) -> None:
        event = await _first(arrival.receive)
        if (message := _whole(event, arrival.framing, method.takes)) is not None:
            request = await self._decoder.decoded(method.takes.decode, message)
            answer = await method.handle(request, call)
        else:
            with self.traffic.incoming.place(call.client) as place:
                request = await single(self._requests(method.takes, arrival, event, place, single=True))
                answer = await method.handle(request, call)
        if len(answer) <= SMALL:
            await response.message(answer, last=True)
        else:
            with self._leaving(call) as leaving:
                await response.message(answer, leaving, last=True)
        await response.end(body_ended=True)

    async def _server_stream(self, method: ServerStreaming, call: Call, arrival: Arrival, response: Response) -> None:
        event = await _first(arrival.receive)
        if (message := _whole(event, arrival.framing, method.takes)) is not None:
            request = await self._decoder.decoded(method.takes.decode, message)
            await self._send_all(method.handle(request, call), call, response)
        else:
            with self.traffic.incoming.place(call.client) as place:
                request = await single(self._requests(method.takes, arrival, event, place, single=True))
                await self._send_all(method.handle(request, call), call, response)

    async def _send_all(self, answers: AsyncGenerator[Answer, None], call: Call, response: Response) -> None:
        with self._leaving(call) as leaving:
            async with aclosing(answers):
                async for answer in answers:
                    if self._slices.is_over():
                        await self._slices.next()
                    await response.message(answer, leaving)
        await response.end()

    async def _stream(self, method: Streaming, call: Call, arrival: Arrival, response: Response) -> None:
        with self._leaving(call) as leaving, self.traffic.incoming.place(call.client) as arriving:
            async with (
                aclosing(self._requests(method.takes, arrival, await arrival.receive(), arriving, single=False)) as requests,
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
        place = self.traffic.outgoing.place(call.client)
        try:
            with place:
                yield place
        except LostPlaceError:
            if place.is_lost:
                raise LostCallerError from None
            raise

    async def _requests(
        self, takes: Takes, arrival: Arrival, event: Event, arriving: Place, *, single: bool
    ) -> AsyncGenerator[Any, None]:
        """The messages of a request whose first event is `event`, as the handler takes them.

        A message that comes in pieces has a place in `arriving` for its bytes. In a `single` request, the place covers the decoded
        message too, for as long as the caller keeps the place.
        """
        weight = _DECODED if single and takes.decode is not None else 1
        unframing = arrival.framing.begin(takes.max_message)
        may_be_bombs = arrival.framing.is_gzip and takes.max_message > LOOKUP
        came = 0
        while True:
            if event["type"] == "http.disconnect":
                raise DisconnectedError
            messages = _messages(unframing, event)
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
                return
            size = unframing.under_way
            if size > _AT_ONCE:
                await arriving.hold(size * weight)
                came += len(event.get("body", b""))
                if came >= SMALL or arriving.since == inf:
                    came = 0
                    arriving.waits()
            elif single:
                if arriving.since == inf:
                    arriving.waits()  # for the end
            else:
                arriving.works()
                arriving.hold_at_most(0)
            event = await arrival.receive()


async def _first(receive: Receive) -> Event:
    """The first event; where it is short, with the next one. Many clients say in an event of its own that no messages follow."""
    event = await receive()
    if not event.get("more_body") or len(event["body"]) > _AT_ONCE:
        return event
    end = await receive()
    return {**end, "body": event["body"] + end.get("body", b"")}


def _whole(event: Event, framing: Framing, takes: Takes) -> bytes | None:
    """The message of a request that is small and came in one piece, as of nearly every call with a single message."""
    if event.get("more_body") or event["type"] == "http.disconnect":
        return None
    return framing.whole(event.get("body", b""), min(takes.max_message, _AT_ONCE))


def _messages(unframing: Unframing, event: Event) -> Iterator[bytes]:
    """The messages that an event of the body completes."""
    yield from unframing.feed(event.get("body", b""))
    if not event.get("more_body"):
        yield from unframing.finish()
