"""Servers and proxies that fail over plain HTTP: one clear line each, and nothing unbounded."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import pytest

from tests.backends.grpc_servers import ANYTHING, serve, store_methods
from tests.tcp_server import port, tcp_server
from tvix_store.backends.grpc import connect_channel, open_store
from tvix_store.backends.grpc.address import ServerAddress
from tvix_store.backends.grpc.connection import Connection
from tvix_store.errors import (
    CorruptError,
    DeniedError,
    ExhaustedError,
    InvalidError,
    NotFoundError,
    RemoteError,
    StoreError,
    UnauthenticatedError,
    UnavailableError,
    UnsupportedError,
)
from tvix_store.rpc.method import Call, Streaming, Takes, Unary, client_streaming
from tvix_store.testing.content import noise, stream

MIB = 1 << 20
SUBJECT = ("thing", "that is asked for")
serve_http = partial(serve, protocol="connect")


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tvix_store.backends.grpc.connection._PAUSES", (0.01, 0.01))


class Raw:
    """A server that says the same bytes to each request, whatever it is, and then ends the connection or keeps it."""

    def __init__(self, says: bytes, *, stays: bool = False, reads: bool = True) -> None:
        self.requests: list[bytes] = []
        self._says = says
        self._stays = stays
        self._reads = reads

    @asynccontextmanager
    async def running(self) -> AsyncIterator[str]:
        """The address."""

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self.requests.append(await reader.readuntil(b"\r\n\r\n"))
            if not self._reads:
                await asyncio.Event().wait()
            writer.write(self._says)
            await writer.drain()
            if self._stays:
                await asyncio.Event().wait()

        async with tcp_server(answer) as server:
            yield f"127.0.0.1:{port(server)}"


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Connection]:
    connection = Connection(ServerAddress.parse(url))
    try:
        yield connection
    finally:
        await connection.close()


async def one() -> AsyncGenerator[bytes, None]:
    yield b"x"


def http(status: str, content_type: str, body: bytes, *fields: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Type: {content_type}", f"Content-Length: {len(body)}", *fields, "", ""]
    return "\r\n".join(lines).encode() + body


def message(flags: int, body: bytes) -> bytes:
    return bytes([flags]) + len(body).to_bytes(4) + body


UNARY = partial(http, "200 OK", "application/proto")
MANY = partial(http, "200 OK", "application/connect+proto")
END = message(2, b"{}")


def error(code: object, status: str = "500 No", text: object = "as it is") -> bytes:
    return http(status, "application/json", json.dumps({"code": code, "message": text}).encode())


@pytest.mark.parametrize(
    ("says", "kind", "words"),
    [
        (b"SSH-2.0-OpenSSH_9.2\r\n", UnavailableError, "not HTTP/1.1; does it speak TLS?"),
        (b"", UnavailableError, "the server closed the connection"),
        (b"HTTP/1.1 200 OK\r\nContent-", UnavailableError, "the server closed the connection"),
        (http("200 OK", "text/html", b"<h1>Sign in</h1>"), RemoteError, "answered with 'text/html'; does it speak Connect?"),
        (http("302 Found", "text/html", b"", "Location: /in"), RemoteError, "with the HTTP status 302"),
        (http("404 Not Found", "text/html", b"<h1>nginx</h1>"), UnsupportedError, "with the HTTP status 404"),
        (http("404 Not Found", "text/plain", b"unknown\nmethod"), UnsupportedError, "with the HTTP status 404: unknown"),
        (http("403 Forbidden", "text/plain", b"no \x1b[31mred"), DeniedError, r"403: no  \[31mred"),
        (http("401 Unauthorized", "text/html", b""), UnauthenticatedError, "with the HTTP status 401"),
        (http("407 Proxy Authentication Required", "text/html", b""), RemoteError, "with the HTTP status 407"),
        (
            http("413 Too Large", "text/html", b""),
            ExhaustedError,
            r"a proxy before it .* add \?max_body=BYTES .*client_max_body_size",
        ),
        (http("502 Bad Gateway", "text/html", b""), UnavailableError, "with the HTTP status 502"),
        (http("500 No", "application/json", b"{"), RemoteError, "with the HTTP status 500"),
        (http("500 No", "application/json", b"[" * 60_000), RemoteError, "with the HTTP status 500"),
        (http("500 No", "application/json", b" " * MIB), ExhaustedError, "an answer of more than 65536 bytes"),
        (error("not_found", "404 Not Found"), NotFoundError, "thing that is asked for"),
        (error("data_loss"), CorruptError, "as it is"),
        (error("data_loss", text=7), CorruptError, "and no message"),
        (error("something"), RemoteError, "UNKNOWN: as it is"),
        (error(None), RemoteError, "with the HTTP status 500"),
        (UNARY(b"x", "Content-Encoding: gzip"), RemoteError, "a compressed answer"),
        (b"HTTP/1.1 200 OK\r\nContent-Type: application/proto\r\nContent-Length: 9\r\n\r\nx", UnavailableError, "breaks off"),
        (b"HTTP/1.1 200 OK\r\nContent-Type: application/proto\r\n\r\n" + bytes(17 * MIB), ExhaustedError, "over the limit"),
    ],
)
async def test_a_strange_answer_to_a_unary_call_is_one_line(says: bytes, kind: type[StoreError], words: str) -> None:
    async with Raw(says).running() as address, connected(f"connect+http://{address}") as connection:
        with pytest.raises(StoreError, match=words) as caught:
            await connection.call("/s/M", b"x", SUBJECT)
    assert type(caught.value) is kind
    assert "\n" not in str(caught.value)
    assert "\x1b" not in str(caught.value)


@pytest.mark.parametrize(
    ("says", "kind", "words"),
    [
        (UNARY(b"x"), RemoteError, "answered with 'application/proto'"),
        (MANY(b""), UnavailableError, "breaks off"),
        (MANY(message(0, b"x")), UnavailableError, "breaks off"),
        (MANY(message(0, b"x")[:-1]), UnavailableError, "breaks off"),
        (MANY(message(1, b"x") + END), RemoteError, "a compressed message"),
        (MANY(message(64, b"x") + END), RemoteError, "a compressed message"),
        (MANY(END + b"x"), RemoteError, "more behind the end"),
        (MANY(message(2, b"")), RemoteError, "the end of the answer is malformed"),
        (MANY(message(2, b"[]")), RemoteError, "the end of the answer is malformed"),
        (MANY(message(2, b'{"error":{}}')), RemoteError, "the end of the answer is malformed"),
        (MANY(message(2, b'{"error":{"code":"data_loss","message":"a\\nb"}}')), CorruptError, "a b"),
        (MANY(b"\0\xff\xff\xff\xff"), ExhaustedError, "a message of 4294967295 bytes"),
        (http("503 No", "text/html", b""), UnavailableError, "with the HTTP status 503"),
    ],
)
async def test_a_strange_stream_is_one_line(says: bytes, kind: type[StoreError], words: str) -> None:
    async with Raw(says).running() as address, connected(f"connect+http://{address}") as connection:
        with pytest.raises(StoreError, match=words) as caught:
            async for _ in connection.receive("/s/M", b"x", SUBJECT):
                pass
        assert type(caught.value) is kind
        assert "\n" not in str(caught.value)
        with pytest.raises(StoreError, match=words):
            await connection.send("/s/M", one, SUBJECT)


@pytest.mark.parametrize(
    ("says", "words"),
    [
        (b"SSH-2.0-OpenSSH_9.2\r\n", "is not HTTP/1.1"),
        (http("200 OK", "text/html", b"<h1>Sign in</h1>"), "answered with 'text/html'; does it speak Connect?"),
        (http("404 Not Found", "text/html", b"<h1>nginx</h1>"), "offers none of the services of a store"),
        (http("403 Forbidden", "text/html", b""), "HTTP status 403"),
        (http("502 Bad Gateway", "text/html", b""), "HTTP status 502"),
    ],
)
async def test_what_is_no_server_of_ours_is_not_opened(says: bytes, words: str) -> None:
    async with Raw(says).running() as address:
        with pytest.raises(StoreError, match=words):
            await open_store(f"connect+http://{address}")


@pytest.mark.parametrize("says", [b"", UNARY(b"xyz")[:-1]])
async def test_a_server_that_does_not_answer_is_not_waited_for(says: bytes) -> None:
    async with Raw(says, stays=True).running() as address, connected(f"connect+http://{address}") as connection:
        with pytest.raises(UnavailableError, match=r"no answer within 0\.2 seconds"):
            await connection.call("/s/M", b"x", SUBJECT, seconds=0.2)


@pytest.mark.parametrize("says", [b"", MANY(message(0, b"x") + END)[:-1]])
async def test_a_server_that_does_not_go_on_is_not_waited_for(says: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tvix_store.backends.grpc.connection.STALL", 0.2)
    async with Raw(says, stays=True).running() as address, connected(f"connect+http://{address}") as connection:
        with pytest.raises(UnavailableError, match=r"no message within 0\.2 seconds"):
            async for _ in connection.receive("/s/M", b"x", SUBJECT):
                pass


async def test_a_server_that_takes_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connect_channel, "STALL", 0.3)
    ended = asyncio.Event()

    async def messages() -> AsyncGenerator[bytes, None]:
        try:
            for _ in range(64):
                yield bytes(MIB)
        finally:
            ended.set()

    async with Raw(b"", reads=False).running() as address, connected(f"connect+http://{address}") as connection:
        with pytest.raises(UnavailableError, match=r"the server took nothing, or gave no answer, within 0\.3 seconds"):
            await connection.send("/s/M", messages, SUBJECT)
    assert ended.is_set()


@pytest.mark.parametrize("number", [1, 3, 10])
async def test_the_error_of_what_is_being_sent_is_told_as_it_is(number: int) -> None:
    async def swallow(messages: AsyncIterator[bytes], _call: Call) -> bytes:
        async for _ in messages:
            pass
        return b""

    async def messages() -> AsyncGenerator[bytes, None]:
        for _ in range(number):
            yield bytes(MIB // 2)
        await asyncio.sleep(0.05)
        raise InvalidError("the source is broken")

    async with serve_http({"/s/M": client_streaming(swallow, ANYTHING)}) as url, connected(url) as connection:
        with pytest.raises(InvalidError, match="the source is broken"):
            await connection.send("/s/M", messages, SUBJECT)


@pytest.mark.parametrize("sleeps", [0.0, 0.01])
async def test_a_server_that_refuses_in_the_middle_is_sent_no_more(sleeps: float) -> None:
    sent = 0

    async def refuse(messages: AsyncIterator[bytes], _call: Call) -> bytes:
        await anext(messages)
        raise ExhaustedError("no more room")

    async def messages() -> AsyncGenerator[bytes, None]:
        nonlocal sent
        for _ in range(500):
            sent += 1
            yield bytes(MIB)
            await asyncio.sleep(sleeps)

    async with serve_http({"/s/M": client_streaming(refuse, ANYTHING)}) as url, connected(url) as connection:
        with pytest.raises(ExhaustedError, match="no more room"):
            await connection.send("/s/M", messages, SUBJECT)
        assert sent < 100


async def test_a_call_asks_with_its_address_and_its_credentials() -> None:
    raw = Raw(UNARY(b"answer"))
    url = "connect+http://some%40one:pass%3Aword@{}/a%20path/?max_body=800000"
    async with raw.running() as address, connected(url.format(address)) as connection:
        assert connection.server == f"connect+http://{address}/a%20path/"
        assert connection.most_sent == 800_000 - 4096
        assert await connection.call("/s/M", b"\xfb\xef", SUBJECT) == b"answer"
        assert await connection.call("/s/M", b"\xfb\xef", SUBJECT, immutable=True) == b"answer"
        assert await connection.call("/s/M", bytes(2000), SUBJECT, immutable=True) == b"answer"
    posted, got, too_long = raw.requests
    assert posted.startswith(b"POST /a%20path/rpc/v1/s/M HTTP/1.1\r\n")
    assert b"\r\nAuthorization: Basic c29tZUBvbmU6cGFzczp3b3Jk\r\n" in posted
    assert got.startswith(b"GET /a%20path/rpc/v1/s/M?connect=v1&encoding=proto&base64=1&message=--8 HTTP/1.1\r\n")
    assert too_long.startswith(b"POST ")


async def test_a_proxy_of_the_environment_is_used_unless_it_is_not_for_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    proxy, there = Raw(UNARY(b"by proxy")), Raw(UNARY(b"straight"))
    async with proxy.running() as by, there.running() as address:
        monkeypatch.setenv("http_proxy", f"http://me:secret@{by}")
        async with connected("connect+http://store.example") as connection:
            assert await connection.call("/s/M", b"", SUBJECT) == b"by proxy"
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        async with connected(f"connect+http://{address}") as connection:
            assert await connection.call("/s/M", b"", SUBJECT) == b"straight"
    [request] = proxy.requests
    assert request.startswith(b"POST http://store.example/rpc/v1/s/M HTTP/1.1\r\n")
    assert b"\r\nProxy-Authorization: Basic " in request


async def test_content_goes_in_bodies_of_bounded_size() -> None:
    """But where a server has no calls for chunks."""
    sizes: list[int] = []

    methods = await store_methods(chunks=True)
    taken: dict[str, int] = {}
    for path, method in list(methods.items()):
        if isinstance(method, Streaming) and method.takes.writes:
            methods[path] = _counting(path, method, taken, sizes)
    async with serve_http(methods) as url, await open_store(url) as store:
        content = noise(3 * MIB, "bounded")
        digest = await store.blobs.put(stream([content]))
        blobs = [noise(250_000, f"bounded {number}") for number in range(12)]
        await store.blobs.put_many(blobs)
        stat = await store.blobs.stat(digest, chunks=True)
        assert stat is not None
        assert len(stat.chunks) > 10
    assert max(sizes) <= MIB - 4096
    assert len([path for path in taken if path.endswith("PutMany")]) == 1


def _counting(path: str, method: Streaming, taken: dict[str, int], sizes: list[int]) -> Streaming:
    async def handle(messages: AsyncIterator[object], call: Call) -> AsyncGenerator[object, None]:
        size = 0

        async def counted() -> AsyncIterator[object]:
            nonlocal size
            async for each in messages:
                size += len(each) if isinstance(each, bytes) else sum(map(len, each))  # type: ignore[call-overload]
                yield each

        async for answer in method.handle(counted(), call):
            yield answer
        sizes.append(size)
        taken[path] = taken.get(path, 0) + 1

    return Streaming(handle, method.takes, one_answer=method.one_answer)  # type: ignore[arg-type]


async def test_a_unary_call_is_repeated_while_the_server_is_unavailable() -> None:
    calls = 0

    async def answer(given: bytes, _call: Call) -> bytes:
        nonlocal calls
        calls += 1
        if calls < 3:
            raise UnavailableError("not yet")
        return given

    async with serve_http({"/s/M": Unary(answer, Takes(immutable=True))}) as url, connected(url) as connection:
        assert await connection.call("/s/M", b"x", SUBJECT, immutable=True) == b"x"
        assert calls == 3


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("connect+http://", "written as connect+http://host:port/path"),
        ("connect+unix:///sock", r"unknown scheme 'connect\+unix'"),
        ("connect+http://host?ca=/x", "unknown parameter 'ca'"),
        ("connect+http://host?max_body=1000", "max_body: it is at least 786432 bytes, not 1000"),
        ("connect+http://host?max_body=1M", "'1M' is not a value for max_body"),
        ("grpc+http://host?max_body=1000000", "unknown parameter 'max_body'"),
    ],
)
def test_what_is_no_address_is_refused_by_name(url: str, words: str) -> None:
    with pytest.raises(InvalidError, match=words.replace("+h", r"\+h")):
        ServerAddress.parse(url)
