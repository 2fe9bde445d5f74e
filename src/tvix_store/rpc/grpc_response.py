"""GrpcResponse: the answer to a gRPC call, as header fields, messages and trailers, or as trailers only."""

from __future__ import annotations

from tvix_store.asgi import DisconnectedError, Event
from tvix_store.rpc.framing import ENCODINGS, framed, pieces_of
from tvix_store.rpc.method import Answer
from tvix_store.rpc.response import Response
from tvix_store.rpc.status import RpcError, status_fields
from tvix_store.traffic import Place

_CONTENT_TYPE = (b"content-type", b"application/grpc")
_OK = (b"grpc-status", b"0")
# The events of plain answers are made once: to make them anew takes a tenth of the time of a short call.
_START: Event = {"type": "http.response.start", "status": 200, "headers": [_CONTENT_TYPE], "trailers": True}
_END: Event = {"type": "http.response.trailers", "headers": [_OK]}
_END_OF_BODY: Event = {"type": "http.response.body"}


class GrpcResponse(Response):
    """Sends the answers to one call."""

    __slots__ = ()

    async def message(self, message: Answer, place: Place | None = None, *, last: bool = False) -> None:
        if place is not None:
            await self._keep(message, place)
        try:
            if not self._started:
                await self._start()
            if isinstance(message, bytes):
                body = framed(message, compressed=self._compressed)
            else:
                head, body = pieces_of(message, compressed=self._compressed)
                if head:
                    await self._send({"type": "http.response.body", "body": head, "more_body": True})
            await self._send({"type": "http.response.body", "body": body, "more_body": not last})
        except OSError:
            raise DisconnectedError from None
        if place is not None:
            place.works()

    async def end(self, *, body_ended: bool = False) -> None:
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
        if not self._compressed and not self._call.answer_headers:
            await self._send(_START)
            return
        encoding = [(b"grpc-encoding", b"gzip")] if self._compressed else []
        await self._send({**_START, "headers": [_CONTENT_TYPE, *encoding, *self._call.answer_headers]})
