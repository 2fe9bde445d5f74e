"""From a request to its handler, without a transport."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from typing import Any

import pytest

from tests.concurrency.turns import turns_during
from tests.rpc.drive import GRPC, request
from tvix_store.asgi import Event
from tvix_store.errors import ConflictError, InvalidError
from tvix_store.rpc.asgi import RpcApp, not_found
from tvix_store.rpc.framing import Frames, frame, gzip_frame
from tvix_store.rpc.method import LOOKUP, Answer, Call, Method, ServerStreaming, Streaming, Takes, Unary, client_streaming
from tvix_store.rpc.status import RpcError, Status
from tvix_store.traffic import Budget, Traffic

GZIP = (b"grpc-encoding", b"gzip")
_MORE_THAN_A_FEW = 100_000
"""Bytes of an answer that is not gathered with others."""


async def echo(message: bytes, _call: Call) -> bytes:
    return message


async def slow(message: bytes, _call: Call) -> bytes:
    await asyncio.sleep(60)
    return message


async def letters(message: bytes, _call: Call) -> AsyncGenerator[bytes, None]:
    for letter in message:
        if letter == ord("!"):
            raise ConflictError("no shouting")
        yield bytes([letter])


async def join(messages: AsyncIterator[bytes], _call: Call) -> bytes:
    return b"+".join([message async for message in messages])


async def echo_each(messages: AsyncIterator[bytes], _call: Call) -> AsyncGenerator[bytes, None]:
    async for message in messages:
        yield message


async def with_metadata(message: bytes, call: Call) -> bytes:
    call.answer_headers = [(b"x-before", dict(call.headers)[b"x-asked"])]
    call.trailers = [(b"x-after", b"2")]
    if message == b"fail":
        raise RpcError(Status.ABORTED, "as asked", b"\1\2")
    return message


METHODS: dict[str, Method] = {
    "/s/Echo": Unary(echo),
    "/s/Slow": Unary(slow),
    "/s/Letters": ServerStreaming(letters),
    "/s/Join": client_streaming(join),
    "/s/EchoEach": Streaming(echo_each),
    "/s/WithMetadata": Unary(with_metadata),
}
APP = RpcApp(METHODS, not_found, max_message=100)


@pytest.mark.parametrize("pieces", [[frame(b"hello")], [frame(b"hello"), b""], [frame(b"hello")[:3], frame(b"hello")[3:]]])
async def test_a_unary_call_is_answered(pieces: list[bytes]) -> None:
    outcome = await request(APP, "/s/Echo", pieces)
    assert (outcome.http_status, outcome.status, outcome.answers) == (200, Status.OK, [b"hello"])
    assert outcome.headers[b"content-type"] == b"application/grpc"


@pytest.mark.parametrize("content_type", [b"application/grpc+proto", b"application/grpc; charset=utf-8", b"Application/GRPC"])
async def test_a_content_type_may_have_a_suffix_and_parameters(content_type: bytes) -> None:
    assert (await request(APP, "/s/Echo", [frame(b"x")], headers=[(b"content-type", content_type)])).answers == [b"x"]


async def test_answers_are_compressed_as_the_request_was() -> None:
    outcome = await request(APP, "/s/Echo", [gzip_frame(b"hello")], headers=[GRPC, GZIP])
    assert outcome.headers[b"grpc-encoding"] == b"gzip"
    assert outcome.body[0] == 1
    assert outcome.answers == [b"hello"]


async def test_a_stream_of_answers_ends_with_the_status() -> None:
    outcome = await request(APP, "/s/Letters", [frame(b"abc")])
    assert (outcome.status, outcome.answers) == (Status.OK, [b"a", b"b", b"c"])


async def test_a_stream_without_answers_is_a_whole_response() -> None:
    outcome = await request(APP, "/s/Letters", [frame(b"")])
    assert (outcome.http_status, outcome.status, outcome.answers) == (200, Status.OK, [])


async def test_a_stream_that_fails_in_the_middle_says_so_in_its_trailers() -> None:
    outcome = await request(APP, "/s/Letters", [frame(b"ab!c")])
    assert (outcome.answers, outcome.status, outcome.message) == ([b"a", b"b"], Status.FAILED_PRECONDITION, "no shouting")


async def test_an_error_before_the_first_answer_is_sent_as_trailers_only() -> None:
    outcome = await request(APP, "/s/Letters", [frame(b"!")])
    assert [event["type"] for event in outcome.events] == ["http.response.start", "http.response.body"]
    assert outcome.status == Status.FAILED_PRECONDITION


async def test_a_stream_of_requests_is_taken_in_order() -> None:
    outcome = await request(APP, "/s/Join", [frame(b"a") + frame(b"b"), frame(b"c")])
    assert outcome.answers == [b"a+b+c"]


async def test_an_empty_stream_of_requests_is_a_stream() -> None:
    assert (await request(APP, "/s/Join")).answers == [b""]


async def test_requests_and_answers_may_alternate() -> None:
    """Each answer is sent before the next request is there."""
    sent: asyncio.Queue[Event] = asyncio.Queue()
    coming: asyncio.Queue[Event] = asyncio.Queue()
    scope: Event = {"type": "http", "path": "/s/EchoEach", "method": "POST", "headers": [GRPC]}
    call = asyncio.create_task(APP(scope, coming.get, sent.put))
    coming.put_nowait({"type": "http.request", "body": frame(b"0"), "more_body": True})
    assert (await sent.get())["type"] == "http.response.start"
    for turn in range(1, 4):
        assert list(Frames(10).feed((await sent.get())["body"])) == [b"%d" % (turn - 1)]
        coming.put_nowait({"type": "http.request", "body": frame(b"%d" % turn), "more_body": True})
    coming.put_nowait({"type": "http.request"})
    await call


async def test_header_fields_and_trailers_of_a_handler_are_sent() -> None:
    outcome = await request(APP, "/s/WithMetadata", [frame(b"x")], headers=[GRPC, (b"x-asked", b"1")])
    assert (outcome.headers[b"x-before"], outcome.trailers[b"x-after"]) == (b"1", b"2")


async def test_they_are_sent_with_an_error_too_and_so_are_its_details() -> None:
    outcome = await request(APP, "/s/WithMetadata", [frame(b"fail")], headers=[GRPC, (b"x-asked", b"1")])
    assert (outcome.headers[b"x-before"], outcome.trailers[b"x-after"]) == (b"1", b"2")
    assert (outcome.status, outcome.trailers[b"grpc-status-details-bin"]) == (Status.ABORTED, b"AQI")


async def test_a_message_over_the_limit_is_refused() -> None:
    for path in ("/s/Echo", "/s/Join"):
        outcome = await request(APP, path, [frame(b"x" * 101)])
        assert (outcome.status, outcome.message) == (
            Status.RESOURCE_EXHAUSTED,
            "a message of 101 bytes is over the limit of 100 for this method",
        )
        assert (await request(APP, path, [frame(b"x" * 100)])).status == Status.OK


async def test_a_method_has_a_bound_of_its_own_which_is_small_unless_it_says_otherwise() -> None:
    app = RpcApp({"/s/Echo": Unary(echo), "/s/Large": Unary(echo, Takes(max_message=10_000))}, not_found)
    for path, bound in (("/s/Echo", LOOKUP), ("/s/Large", 10_000)):
        for encode in (frame, gzip_frame):
            headers = [GRPC, GZIP]
            assert (await request(app, path, [encode(bytes(bound))], headers=headers)).status == Status.OK
            refused = await request(app, path, [encode(bytes(bound + 1))], headers=headers)
            assert (refused.status, f"over the limit of {bound}" in refused.message) == (Status.RESOURCE_EXHAUSTED, True)


@pytest.mark.parametrize("size", [10, 100_000, 1_000_000])
async def test_a_large_message_is_decoded_in_a_thread(size: int) -> None:
    threads: list[threading.Thread] = []

    def decode(message: bytes) -> bytes:
        threads.append(threading.current_thread())
        return message[:1] * 2

    takes = Takes(max_message=size, decode=decode)
    app = RpcApp({"/s/Echo": Unary(echo, takes), "/s/Join": client_streaming(join, takes)}, not_found)
    for path in ("/s/Echo", "/s/Join"):
        assert (await request(app, path, [frame(b"x" * size)])).answers == [b"xx"]
    assert [thread is threading.main_thread() for thread in threads] == [size == 10] * 2


async def test_a_message_that_cannot_be_decoded_is_refused_wherever_that_happens() -> None:
    def decode(message: bytes) -> bytes:
        raise InvalidError("no")

    app = RpcApp({"/s/Echo": Unary(echo, Takes(max_message=100_000, decode=decode))}, not_found)
    for size in (1, 100_000):
        assert (await request(app, "/s/Echo", [frame(bytes(size))])).status == Status.INVALID_ARGUMENT


async def test_others_have_their_turn_while_a_stream_of_tiny_messages_is_taken() -> None:
    async def take() -> None:
        assert (await request(APP, "/s/Join", [frame(b"") * 50_000])).status == Status.OK

    assert await turns_during(take()) > 5


async def test_a_server_that_is_read_only_refuses_a_write_before_it_reads_a_byte() -> None:
    takes = Takes(writes=True)
    app = RpcApp(
        {"/s/Echo": Unary(echo, takes), "/s/Join": client_streaming(join, takes), "/s/Read": Unary(echo)}, not_found, read_only=True
    )
    sent: list[Event] = []

    async def receive() -> Event:
        raise AssertionError("it is read")

    async def send(event: Event) -> None:
        sent.append(event)

    for path in ("/s/Echo", "/s/Join"):
        sent.clear()
        await app({"type": "http", "path": path, "method": "POST", "headers": [GRPC]}, receive, send)
        assert dict(sent[0]["headers"])[b"grpc-status"] == b"%d" % Status.PERMISSION_DENIED
    assert (await request(app, "/s/Read", [frame(b"x")])).status == Status.OK


@pytest.mark.parametrize("messages", [[], [b"a", b"b"]])
async def test_a_call_of_one_message_takes_exactly_one(messages: list[bytes]) -> None:
    for path in ("/s/Echo", "/s/Letters"):
        assert (await request(APP, path, [frame(message) for message in messages])).status == Status.UNIMPLEMENTED


@pytest.mark.parametrize("garbage", [b"\7hello world", b"\0\0\0\0\7short", b"\0"])
async def test_garbage_is_an_error_of_its_call(garbage: bytes) -> None:
    for path in ("/s/Echo", "/s/Join", "/s/EchoEach"):
        assert (await request(APP, path, [garbage])).status == Status.INTERNAL


async def test_an_unknown_encoding_is_told_what_is_known() -> None:
    outcome = await request(APP, "/s/Echo", [frame(b"x")], headers=[GRPC, (b"grpc-encoding", b"br")])
    assert (outcome.status, outcome.headers[b"grpc-accept-encoding"]) == (Status.UNIMPLEMENTED, b"identity,gzip")


async def test_an_unknown_method_is_unimplemented() -> None:
    outcome = await request(APP, "/s/Nothing", [frame(b"x")])
    assert (outcome.http_status, outcome.status, outcome.message) == (200, Status.UNIMPLEMENTED, "unknown method /s/Nothing")


@pytest.mark.parametrize(
    ("path", "method", "content_type", "status"),
    [
        ("/s/Echo", "POST", b"text/html", 415),
        ("/s/Echo", "GET", b"", 415),
        ("/s/Echo", "GET", b"application/grpc", 415),
        ("/s/Echo", "POST", b"application/grpc+json", 415),
        ("/other", "POST", b"application/grpc-web", 415),
        ("/other", "GET", b"", 404),
    ],
)
async def test_what_is_no_grpc_call_gets_an_http_status(path: str, method: str, content_type: bytes, status: int) -> None:
    outcome = await request(APP, path, [b""], method=method, headers=[(b"content-type", content_type)] if content_type else [])
    assert outcome.http_status == status


async def test_the_time_of_a_call_is_bounded() -> None:
    outcome = await request(APP, "/s/Slow", [frame(b"x")], headers=[GRPC, (b"grpc-timeout", b"20m")])
    assert outcome.status == Status.DEADLINE_EXCEEDED


async def test_nothing_is_sent_to_a_caller_that_went_away() -> None:
    for path in ("/s/Echo", "/s/Join", "/s/EchoEach"):
        assert (await request(APP, path, disconnects=True)).events == []


@pytest.mark.parametrize("leaves_at", [0, 2])
async def test_a_caller_that_goes_away_in_the_middle_of_the_answers_ends_the_call_quietly(leaves_at: int) -> None:
    """Nothing more is made or sent, and no status."""
    steps: list[object] = []

    async def numbers(_message: bytes, _call: Call) -> AsyncGenerator[bytes, None]:
        try:
            for number in range(10):
                steps.append(number)
                yield b"%d" % number * _MORE_THAN_A_FEW
        finally:
            steps.append("ended")

    async def receive() -> Event:
        return {"type": "http.request", "body": frame(b"")}

    async def send(event: Event) -> None:
        sent.append(event)
        if len(sent) == 2 + leaves_at:
            raise ConnectionResetError

    sent: list[Event] = []
    app = RpcApp({"/s/Numbers": ServerStreaming(numbers)}, not_found)
    await app({"type": "http", "path": "/s/Numbers", "method": "POST", "headers": [GRPC]}, receive, send)
    assert [event["type"] for event in sent] == ["http.response.start"] + ["http.response.body"] * (1 + leaves_at)
    assert steps == [*range(1 + leaves_at), "ended"]


def app_with_budget(handle: Callable[[bytes, Call], Coroutine[Any, Any, bytes]]) -> tuple[RpcApp, Traffic]:
    """An app that takes messages of 100,000 bytes, and loses patience with clients after 0.1 s."""
    traffic = Traffic()
    traffic.incoming = Budget(1 << 20, stall=0.1, spared=0.1)
    takes = Takes(max_message=100_000, decode=bytes)
    return RpcApp({"/s/Handle": Unary(handle, takes)}, not_found, traffic=traffic), traffic


async def test_who_waits_for_its_answer_does_not_do_too_little() -> None:
    async def long(message: bytes, _call: Call) -> bytes:
        await asyncio.sleep(2.5)  # longer than the time between two looks at who has stopped
        return message[:3]

    app, _ = app_with_budget(long)
    outcome = await request(app, "/s/Handle", [frame(b"abc" * 30_000)[:70_000], frame(b"abc" * 30_000)[70_000:]])
    assert (outcome.status, outcome.answers) == (Status.OK, [b"abc"])


@pytest.mark.parametrize("pieces", [1, 2])
async def test_a_message_is_counted_until_its_call_ends_and_its_client_must_go_on(pieces: int) -> None:
    app, traffic = app_with_budget(echo)
    coming: asyncio.Queue[Event] = asyncio.Queue()
    sent: asyncio.Queue[Event] = asyncio.Queue()
    scope: Event = {"type": "http", "path": "/s/Handle", "method": "POST", "headers": [GRPC]}
    call = asyncio.create_task(app(scope, coming.get, sent.put))
    body = frame(bytes(90_000))
    size = -(-len(body) // pieces)
    for at in range(0, len(body), size):
        coming.put_nowait({"type": "http.request", "body": body[at : at + size], "more_body": True})
    for _ in range(3):
        coming.put_nowait({"type": "http.request", "body": b"", "more_body": True})
    await asyncio.sleep(0.5)
    assert traffic.incoming.held >= 90_000  # with room for what it was decoded to
    await asyncio.wait_for(call, 20)
    assert traffic.incoming.held == 0
    assert dict((await sent.get())["headers"])[b"grpc-status"] == b"%d" % Status.RESOURCE_EXHAUSTED


@pytest.mark.parametrize("answer", [bytes(300_000), (b"head", bytes(300_000))])
async def test_answers_are_counted_while_their_client_does_not_take_them(answer: Answer) -> None:
    async def many(_message: bytes, _call: Call) -> AsyncGenerator[Answer, None]:
        for _ in range(2):
            yield answer

    async def receive() -> Event:
        return {"type": "http.request", "body": frame(b"")}

    async def send(_event: Event) -> None:
        held.append(traffic.outgoing.held)

    held: list[int] = []
    traffic = Traffic()
    app = RpcApp({"/s/Many": ServerStreaming(many)}, not_found, traffic=traffic)
    await app({"type": "http", "path": "/s/Many", "method": "POST", "headers": [GRPC]}, receive, send)
    assert max(held) >= 300_000
    assert traffic.outgoing.held == 0
