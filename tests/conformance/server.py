"""A server for connectrpc.com/conformance, on our layer for calls and our engine.

`connectconformance --mode server -- python -m tests.conformance.server` starts it, tells it on stdin how to serve, hears on stdout
where, and then makes its calls. It is ended by SIGTERM.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Iterable
from pathlib import Path
from typing import Any

import uvloop

from tests.conformance.messages import message
from tvix_store.asgi import App, Event, Receive, Send
from tvix_store.protocol import connect
from tvix_store.rpc.asgi import MAX_MESSAGE, RpcApp, not_found
from tvix_store.rpc.deadline import seconds
from tvix_store.rpc.method import Call, Fields, Method, ServerStreaming, Streaming, Takes, Unary, client_streaming
from tvix_store.rpc.status import RpcError, Status
from tvix_store.server.listeners import listening
from tvix_store.server.serving import serving
from tvix_store.server.settings import ServerConfig, TlsFiles

SERVICE = "connectrpc.conformance.v1.ConformanceService"
_Single = message("Single")
_Several = message("Several")
_Answer = message("Answer")


async def unary(request: bytes, call: Call) -> bytes:
    return await _single_answer([request], call, "UnaryRequest")


async def idempotent_unary(request: bytes, call: Call) -> bytes:
    return await _single_answer([request], call, "IdempotentUnaryRequest")


async def client_stream(messages: AsyncIterator[bytes], call: Call) -> bytes:
    return await _single_answer([each async for each in messages], call, "ClientStreamRequest")


async def _single_answer(requests: list[bytes], call: Call, kind: str) -> bytes:
    definition = _Single.FromString(requests[0] if requests else b"").response_definition
    call.answer_headers = _fields(definition.response_headers)
    call.trailers = _fields(definition.response_trailers)
    info = _request_info(call, requests, kind)
    await asyncio.sleep(definition.response_delay_ms / 1000)
    if definition.HasField("error"):
        raise _error(definition.error, info)
    return _answer(definition.response_data, info)


async def server_stream(request: bytes, call: Call) -> AsyncGenerator[bytes, None]:
    async for answer in _answers(_Several.FromString(request).response_definition, [request], call, "ServerStreamRequest"):
        yield answer


async def bidi_stream(messages: AsyncIterator[bytes], call: Call) -> AsyncGenerator[bytes, None]:
    first = await anext(messages, b"")
    several = _Several.FromString(first)
    if several.full_duplex:
        answers = _interleaved(several.response_definition, first, messages, call)
    else:
        requests = [first, *[each async for each in messages]]
        answers = _answers(several.response_definition, requests, call, "BidiStreamRequest")
    async for answer in answers:
        yield answer


async def _answers(definition: Any, requests: list[bytes], call: Call, kind: str) -> AsyncGenerator[bytes, None]:
    """All answers that are defined, once the requests are there."""
    call.answer_headers = _fields(definition.response_headers)
    call.trailers = _fields(definition.response_trailers)
    info = _request_info(call, requests, kind)
    for position, data in enumerate(definition.response_data):
        await asyncio.sleep(definition.response_delay_ms / 1000)
        yield _answer(data, info if position == 0 else None)
    if definition.HasField("error"):
        raise _error(definition.error, None if definition.response_data else info)


async def _interleaved(definition: Any, first: bytes, messages: AsyncIterator[bytes], call: Call) -> AsyncGenerator[bytes, None]:
    """An answer after each request; what is left of them when the requests end."""
    call.answer_headers = _fields(definition.response_headers)
    call.trailers = _fields(definition.response_trailers)
    left = list(definition.response_data)
    request: bytes | None = first
    info = _request_info(call, [first], "BidiStreamRequest")
    while left:
        if request is not None and request is not first:
            info = message("RequestInfo")(requests=[_any(request, "BidiStreamRequest")])
        await asyncio.sleep(definition.response_delay_ms / 1000)
        yield _answer(left.pop(0), info if request is not None else None)
        if request is not None:
            request = await anext(messages, None)
    if definition.HasField("error"):
        raise _error(definition.error, None if definition.response_data else info)


def _answer(data: bytes, info: Any) -> bytes:
    encoded: bytes = _Answer(payload={"data": data, "request_info": info}).SerializeToString()
    return encoded


def _request_info(call: Call, requests: list[bytes], kind: str) -> Any:
    info = message("RequestInfo")(requests=[_any(each, kind) for each in requests])
    values: dict[str, list[str]] = {}
    for name, value in call.headers:
        values.setdefault(name.decode(), []).append(value.decode())
    for name_, value_ in values.items():
        info.request_headers.add(name=name_, value=value_)
    if "grpc-timeout" in values:
        info.timeout_ms = round(seconds(values["grpc-timeout"][0].encode()) * 1000)
    if "connect-timeout-ms" in values:
        info.timeout_ms = int(values["connect-timeout-ms"][0])
    return info


def _any(body: bytes, kind: str) -> Any:
    return message("Any")(type_url=f"type.googleapis.com/connectrpc.conformance.v1.{kind}", value=body)


def _fields(headers: Iterable[Any]) -> Fields:
    return [(header.name.lower().encode(), value.encode()) for header in headers for value in header.value]


def _error(error: Any, info: Any) -> RpcError:
    details = list(error.details)
    if info is not None:
        type_url = "type.googleapis.com/connectrpc.conformance.v1.ConformancePayload.RequestInfo"
        details.append(message("Any")(type_url=type_url, value=info.SerializeToString()))
    status = message("Status")(code=error.code, message=error.message, details=details)
    return RpcError(Status(error.code), error.message, status.SerializeToString())


_ANY_SIZE = Takes(max_message=MAX_MESSAGE)
METHODS: dict[str, Method] = {
    f"/{SERVICE}/Unary": Unary(unary, _ANY_SIZE),
    f"/{SERVICE}/IdempotentUnary": Unary(idempotent_unary, Takes(max_message=MAX_MESSAGE, immutable=True)),
    f"/{SERVICE}/ClientStream": client_streaming(client_stream, _ANY_SIZE),
    f"/{SERVICE}/ServerStream": ServerStreaming(server_stream, _ANY_SIZE),
    f"/{SERVICE}/BidiStream": Streaming(bidi_stream, _ANY_SIZE),
}


def _below_prefix(app: App) -> App:
    """The suite asks for methods without a prefix. Here, calls that are not gRPC get ours."""

    def prefixed(scope: Event, receive: Receive, send: Send) -> Coroutine[Any, Any, None]:
        if not dict(scope["headers"]).get(b"content-type", b"").startswith(b"application/grpc"):
            scope = {**scope, "path": connect.PREFIX + scope["path"]}
        return app(scope, receive, send)

    return prefixed


async def main() -> None:
    size = int.from_bytes(sys.stdin.buffer.read(4))
    wanted = message("ServerCompatRequest").FromString(sys.stdin.buffer.read(size))
    ending = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ending.set)
    with tempfile.TemporaryDirectory() as directory, listening(["127.0.0.1:0"]) as sockets:
        tls = TlsFiles(Path(directory) / "cert.pem", Path(directory) / "key.pem") if wanted.use_tls else None
        if tls:
            tls.certificate.write_bytes(wanted.server_creds.cert)
            tls.key.write_bytes(wanted.server_creds.key)
        config = ServerConfig(
            grace=1, tls=tls, **({"max_message": wanted.message_receive_limit} if wanted.message_receive_limit else {})
        )
        async with serving(_below_prefix(RpcApp(METHODS, not_found, max_message=config.max_message)), sockets, config):
            host, port = sockets[0].getsockname()
            answer = message("ServerCompatResponse")(host=host, port=port, pem_cert=wanted.server_creds.cert).SerializeToString()
            sys.stdout.buffer.write(len(answer).to_bytes(4) + answer)
            sys.stdout.buffer.flush()
            await ending.wait()


if __name__ == "__main__":
    uvloop.run(main())
