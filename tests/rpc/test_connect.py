"""Calls over Connect, without a transport: the same work as over gRPC, in other frames, and with other ways to fail."""

from __future__ import annotations

import asyncio
import gzip
import json
from base64 import urlsafe_b64encode
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any
from urllib.parse import quote

import pytest

from tests.rpc.drive import Outcome, request
from tvix_store import errors
from tvix_store.asgi import Event
from tvix_store.protocol.connect import END, STREAM, UNARY, decode_end, decode_error, http_status
from tvix_store.protocol.status import Status
from tvix_store.rpc.asgi import RpcApp, not_found
from tvix_store.rpc.framing import frame, gzip_frame
from tvix_store.rpc.method import Call, Method, ServerStreaming, Streaming, Takes, Unary, client_streaming
from tvix_store.rpc.status import RpcError
from tvix_store.testing.content import noise
from tvix_store.traffic import Budget, Traffic

ONE = (b"content-type", UNARY.encode())
MANY = (b"content-type", STREAM.encode())
GZIP = (b"content-encoding", b"gzip")
NO_STORE = b"no-store"
LARGE = 100_000


async def echo(message: bytes, call: Call) -> bytes:
    if message == b"absent":
        raise errors.NotFoundError("blob", "x")
    call.answer_headers = [(b"x-before", b"1")]
    call.trailers = [(b"x-after", b"2"), (b"x-after", b"3")]
    return message


async def letters(message: bytes, call: Call) -> AsyncGenerator[tuple[bytes, bytes], None]:
    call.trailers = [(b"x-after", b"2"), (b"x-after", b"3")]
    for letter in message:
        if letter == ord("!"):
            raise errors.ConflictError("no shouting")
        yield b"<", bytes([letter])


async def join(messages: AsyncIterator[bytes], _call: Call) -> bytes:
    return b"+".join([message async for message in messages])


async def echo_each(messages: AsyncIterator[bytes], _call: Call) -> AsyncGenerator[bytes, None]:
    async for message in messages:
        yield message


async def fail(message: bytes, _call: Call) -> bytes:
    raise RpcError(Status[message.decode()], "as asked \udcff", b"\x1a\x0f\x0a\x0aurl/x.Name\x12\x01\xff")


METHODS: dict[str, Method] = {
    "/s/Echo": Unary(echo),
    "/s/Same": Unary(echo, Takes(immutable=True)),
    "/s/Fail": Unary(fail),
    "/s/Write": Unary(echo, Takes(writes=True)),
    "/s/Large": Unary(echo, Takes(max_message=LARGE)),
    "/s/Letters": ServerStreaming(letters),
    "/s/Join": client_streaming(join),
    "/s/EchoEach": Streaming(echo_each),
}
APP = RpcApp(METHODS, not_found)


async def ask(name: str, *pieces: bytes, headers: Any = (ONE,), app: RpcApp = APP, **more: Any) -> Outcome:
    return await request(app, f"/rpc/v1/s/{name}", pieces, headers=headers, **more)


async def stream(name: str, *pieces: bytes, headers: Any = (MANY,), **more: Any) -> tuple[list[bytes], dict[str, Any]]:
    """The messages that come, and the end as JSON."""
    outcome = await ask(name, *pieces, headers=headers, **more)
    assert outcome.http_status == 200
    assert outcome.headers[b"content-type"] == STREAM.encode()
    assert outcome.headers[b"cache-control"] == NO_STORE
    assert "headers" not in outcome.events[-1]  # no trailers of HTTP
    body = outcome.body
    messages: list[bytes] = []
    while True:
        flags, size = body[0], int.from_bytes(body[1:5])
        message, body = body[5 : 5 + size], body[5 + size :]
        if flags == END:
            assert body == b""
            return messages, json.loads(message)
        messages.append(gzip.decompress(message) if flags else message)


@pytest.mark.parametrize("pieces", [[b"hello"], [b"hello", b""], [b"he", b"llo"], [b"", b"hello"]])
async def test_a_unary_call_is_a_body_for_a_body(pieces: list[bytes]) -> None:
    outcome = await ask("Echo", *pieces)
    assert (outcome.http_status, outcome.body) == (200, b"hello")
    assert outcome.headers == {
        b"content-type": UNARY.encode(),
        b"content-length": b"5",
        b"cache-control": NO_STORE,
        b"x-before": b"1",
        b"trailer-x-after": b"3",
    }
    assert [value for name, value in outcome.events[0]["headers"] if name == b"trailer-x-after"] == [b"2", b"3"]


async def test_nothing_is_the_empty_message_also_where_it_is_called_gzip() -> None:
    for headers in ([ONE], [ONE, GZIP]):
        assert (await ask("Echo", headers=headers)).http_status == 200


async def test_a_caller_that_goes_away_has_sent_no_empty_message() -> None:
    assert (await ask("Echo", disconnects=True)).events == []


@pytest.mark.parametrize(("accepted", "comes"), [(None, True), (b"br, gzip", True), (b"identity", False)])
async def test_an_answer_is_compressed_as_its_request_if_the_caller_takes_that(accepted: bytes | None, comes: bool) -> None:
    headers = [ONE, GZIP, *([(b"accept-encoding", accepted)] if accepted else [])]
    outcome = await ask("Echo", gzip.compress(b"hello"), headers=headers)
    assert (gzip.decompress(outcome.body) if comes else outcome.body) == b"hello"
    assert outcome.headers.get(b"content-encoding") == (b"gzip" if comes else None)


async def test_streams_end_with_a_message_of_their_own() -> None:
    assert await stream("Letters", frame(b"ab")) == ([b"<a", b"<b"], {"metadata": {"x-after": ["2", "3"]}})
    assert await stream("Join", frame(b"a") + frame(b"b"), frame(b"c")) == ([b"a+b+c"], {})
    assert await stream("EchoEach", frame(b"a"), frame(b"b")) == ([b"a", b"b"], {})
    assert await stream("EchoEach") == ([], {})


async def test_messages_of_a_stream_are_compressed_one_by_one() -> None:
    headers = [MANY, (b"connect-content-encoding", b"gzip")]
    assert (await stream("Letters", gzip_frame(b"ab"), headers=headers))[0] == [b"<a", b"<b"]
    outcome = await ask("Letters", gzip_frame(b"ab"), headers=headers)
    assert (outcome.headers[b"connect-content-encoding"], outcome.body[0]) == (b"gzip", 1)


async def test_a_stream_that_fails_says_so_at_its_end() -> None:
    messages, end = await stream("Letters", frame(b"a!"))
    assert messages == [b"<a"]
    assert end["error"] == {"code": "failed_precondition", "message": "no shouting"}
    assert end["metadata"] == {"x-after": ["2", "3"]}


async def test_a_stream_with_one_answer_is_a_unary_call_too() -> None:
    """A dialect declares its Put as unary."""
    outcome = await ask("Join", b"a")
    assert (outcome.http_status, outcome.body) == (200, b"a")


@pytest.mark.parametrize("status", [status for status in Status if status is not Status.OK])
async def test_an_error_is_json_with_an_http_status(status: Status) -> None:
    outcome = await ask("Fail", status.name.encode())
    assert outcome.http_status == http_status(status)
    assert outcome.headers[b"content-type"] == b"application/json"
    assert outcome.headers[b"cache-control"] == NO_STORE
    assert decode_error(outcome.body) == (status, "as asked \ufffd")
    assert json.loads(outcome.body)["details"] == [{"type": "x.Name", "value": "/w"}]


async def test_limits_are_those_of_grpc() -> None:
    for name, bound in (("Echo", 8192), ("Large", LARGE)):
        for encode in (bytes, gzip.compress):
            headers = [ONE] if encode is bytes else [ONE, GZIP]
            assert (await ask(name, encode(bytes(bound)), headers=headers)).http_status == 200
            refused = await ask(name, encode(bytes(bound + 1)), headers=headers)
            status, line = decode_error(refused.body)
            assert (status, f"over the limit of {bound}" in line) == (Status.RESOURCE_EXHAUSTED, True)
    _, end = await stream("Join", frame(bytes(8193)))
    assert end["error"]["code"] == "resource_exhausted"


async def test_a_message_that_is_announced_too_large_is_refused_before_it_comes() -> None:
    coming: list[Event] = [{"type": "http.request", "body": bytes(5000), "more_body": True}]
    sent: list[Event] = []

    async def receive() -> Event:
        return coming.pop()

    async def send(event: Event) -> None:
        sent.append(event)

    headers = [ONE, (b"content-length", b"10000000")]
    await APP({"type": "http", "path": "/rpc/v1/s/Echo", "method": "POST", "headers": headers, "http_version": "2"}, receive, send)
    assert sent[0]["status"] == http_status(Status.RESOURCE_EXHAUSTED)


async def test_a_place_is_held_for_a_body_that_is_coming() -> None:
    """Of one without a length, for all that it may become."""
    for headers, expected in (([ONE, (b"content-length", b"60000")], 60_000), ([ONE], LARGE)):
        traffic = Traffic()
        traffic.incoming = Budget(1 << 20)
        app = RpcApp(METHODS, not_found, traffic=traffic)
        held: list[int] = []
        pieces = [bytes(5000), bytes(5000), bytes(50_000)]

        async def receive(pieces: list[bytes] = pieces, held: list[int] = held, traffic: Traffic = traffic) -> Event:
            held.append(traffic.incoming.held)
            return {"type": "http.request", "body": pieces.pop(), "more_body": bool(pieces)}

        async def send(_event: Event) -> None:
            pass

        scope = {"type": "http", "path": "/rpc/v1/s/Large", "method": "POST", "headers": headers, "http_version": "2"}
        await app(scope, receive, send)
        assert held == [0, expected, expected]
        assert traffic.incoming.held == 0


async def test_a_server_that_is_read_only_refuses_a_write() -> None:
    app = RpcApp(METHODS, not_found, read_only=True)
    outcome = await ask("Write", b"x", app=app)
    assert (outcome.http_status, decode_error(outcome.body)) == (403, (Status.PERMISSION_DENIED, "this store is read-only"))


@pytest.mark.parametrize(("field", "status"), [(b"1", Status.DEADLINE_EXCEEDED), (b"1s", Status.INVALID_ARGUMENT)])
async def test_the_time_of_a_call_is_bounded(field: bytes, status: Status) -> None:
    async def slow(message: bytes, _call: Call) -> bytes:
        await asyncio.sleep(60)
        return message

    app = RpcApp({"/s/Slow": Unary(slow)}, not_found)
    outcome = await ask("Slow", b"x", headers=[ONE, (b"connect-timeout-ms", field)], app=app)
    assert decode_error(outcome.body)[0] is status


@pytest.mark.parametrize(
    ("name", "method", "content_type", "status", "fields"),
    [
        ("Nothing", "POST", UNARY, 404, {}),
        ("Nothing", "GET", "", 404, {}),
        ("Echo", "GET", "", 405, {b"allow": b"POST"}),
        ("Echo", "DELETE", UNARY, 405, {b"allow": b"POST"}),
        ("Same", "PUT", UNARY, 405, {b"allow": b"GET, POST"}),
        ("Letters", "GET", "", 405, {b"allow": b"POST"}),
        ("Echo", "POST", STREAM, 415, {b"accept-post": UNARY.encode()}),
        ("Echo", "POST", "application/json", 415, {b"accept-post": UNARY.encode()}),
        ("Echo", "POST", "", 415, {b"accept-post": UNARY.encode()}),
        ("Letters", "POST", UNARY, 415, {b"accept-post": STREAM.encode()}),
        ("EchoEach", "POST", UNARY, 415, {b"accept-post": STREAM.encode()}),
    ],
)
async def test_what_is_no_call_gets_an_http_status_and_a_line(
    name: str, method: str, content_type: str, status: int, fields: dict[bytes, bytes]
) -> None:
    headers = [(b"content-type", content_type.encode())] if content_type else []
    outcome = await ask(name, b"", method=method, headers=headers)
    assert outcome.http_status == status
    assert outcome.headers.items() >= fields.items()
    assert outcome.headers[b"cache-control"] == NO_STORE
    assert outcome.body.count(b"\n") == 1


@pytest.mark.parametrize("name", ["Echo", "Join"])
async def test_an_unknown_compression_is_told_what_is_known(name: str) -> None:
    if name == "Echo":
        outcome = await ask(name, b"x", headers=[ONE, (b"content-encoding", b"br")])
        status, line = decode_error(outcome.body)
    else:
        _, end = await stream(name, frame(b"x"), headers=[MANY, (b"connect-content-encoding", b"br")])
        status, line = decode_end(json.dumps(end).encode()) or (Status.OK, "")
    assert (status, "use identity,gzip" in line) == (Status.UNIMPLEMENTED, True)


def query(content: bytes, **fields: str) -> bytes:
    values = {"connect": "v1", "encoding": "proto", "base64": "1", "message": urlsafe_b64encode(content).decode(), **fields}
    return "&".join(f"{name}={quote(value, safe='')}" for name, value in values.items()).encode()


@pytest.mark.parametrize(
    "asked",
    [
        query(b"\xfb\xef~"),
        query(b"\xfb\xef~x"),  # padded
        query(b"\xfb\xef~x").replace(b"%3D", b""),
        query(b"", base64="0", message="\u00fb").replace(b"%C3%BB", b"%fb%ef~"),
        query(gzip.compress(b"\xfb\xef~", mtime=0), compression="gzip"),
        b"further=1&" + query(b"\xfb\xef~").replace(b"connect=v1&", b""),
    ],
)
async def test_a_method_whose_answers_never_change_is_asked_by_get_and_caches_may_keep_the_answer(asked: bytes) -> None:
    outcome = await ask("Same", method="GET", query=asked, headers=())
    assert (outcome.http_status, outcome.body[:3]) == (200, b"\xfb\xef~")
    assert outcome.headers[b"cache-control"] == b"public, max-age=31536000, immutable"
    assert b"content-encoding" not in outcome.headers
    posted = await ask("Same", b"\xfb\xef~")
    assert (posted.http_status, posted.headers[b"cache-control"]) == (200, NO_STORE)


async def test_no_cache_keeps_an_error() -> None:
    outcome = await ask("Same", method="GET", query=query(b"absent"), headers=())
    assert (outcome.http_status, decode_error(outcome.body)[0]) == (404, Status.NOT_FOUND)
    assert outcome.headers[b"cache-control"] == NO_STORE


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        (b"", 415),
        (query(b"x", encoding="json"), 415),
        (query(b"x", connect="v2"), 400),
        (query(b"x").partition(b"&message")[0], 400),
        (query(b"x", message="a b+c"), 400),
        (query(b"x", message="a"), 400),
        (query(b"x", compression="br"), 501),
        (query(b"x", compression="gzip"), 500),
        (query(noise(8193)), 429),
        (b"&".join(b"%d=1" % number for number in range(30)), 400),
    ],
)
async def test_a_query_that_is_no_call_is_refused(asked: bytes, status: int) -> None:
    outcome = await ask("Same", method="GET", query=asked, headers=())
    assert (outcome.http_status, outcome.headers[b"cache-control"]) == (status, NO_STORE)


def test_a_method_that_writes_is_never_offered_by_get() -> None:
    with pytest.raises(ValueError, match="writes"):
        Takes(writes=True, immutable=True)


class _Endless:
    """A body of which more always comes."""

    def __init__(self) -> None:
        self.took = 0

    async def __call__(self) -> Event:
        self.took += 1 << 20
        return {"type": "http.request", "body": bytes(1 << 20), "more_body": True}


@pytest.mark.parametrize("version", ["1.1", "2"])
async def test_a_caller_that_goes_on_behind_an_error_is_cut_off_over_http1(version: str) -> None:
    """The engine would take the body for as long as it comes; over HTTP/2 it resets the stream."""
    cut: list[object] = []
    app = RpcApp(METHODS, not_found, traffic=Traffic(hang_up=cut.append))
    body = _Endless()
    sent: list[Event] = []

    async def send(event: Event) -> None:
        sent.append(event)

    headers = [ONE, (b"transfer-encoding", b"chunked")]
    scope: Event = {"type": "http", "path": "/rpc/v1/s/Echo", "method": "POST", "headers": headers, "client": ("::1", 7)}
    await app({**scope, "http_version": version}, body, send)
    assert sent[0]["status"] == http_status(Status.RESOURCE_EXHAUSTED)
    assert cut == ([("::1", 7)] if version == "1.1" else [])
    assert body.took <= 200 << 20


@pytest.mark.parametrize("version", ["1.1", "2"])
async def test_a_caller_that_takes_nothing_is_cut_off_over_http1_once_others_need_its_place(version: str) -> None:
    """The engine has a clock for it over HTTP/2 alone."""

    async def pour(_message: bytes, _call: Call) -> AsyncGenerator[bytes, None]:
        while True:
            yield bytes(1 << 20)

    async def receive() -> Event:
        return {"type": "http.request", "body": frame(b"x")}

    async def send(event: Event) -> None:
        if event["type"] == "http.response.body":
            await asyncio.Event().wait()

    cut: list[object] = []
    traffic = Traffic(hang_up=cut.append)
    traffic.outgoing = Budget(8 << 20, stall=0.1, spared=0.1)
    app = RpcApp({"/s/Pour": ServerStreaming(pour)}, not_found, traffic=traffic)
    scope: Event = {"type": "http", "path": "/rpc/v1/s/Pour", "method": "POST", "headers": [MANY], "client": ("::1", 7)}
    await asyncio.wait_for(app({**scope, "http_version": version}, receive, send), 20)
    assert cut == ([("::1", 7)] if version == "1.1" else [])
