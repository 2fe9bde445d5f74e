"""A proxy before an object store: it counts requests, takes its time, and does harm where a test says so."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from typing import Literal, TypeAlias
from urllib.parse import unquote, urlsplit

from tests.tcp_server import port, tcp_server


@dataclass(frozen=True)
class Request:
    """A request: `key` is its path without the first slash, decoded: `bucket/key`. `size` is that of its body."""

    method: str
    key: str
    query: str
    size: int
    headers: dict[str, str]

    @property
    def is_list(self) -> bool:
        return "list-type=" in self.query

    @property
    def is_conditional(self) -> bool:
        return "if-none-match" in self.headers or "if-match" in self.headers


@dataclass(frozen=True)
class Answer:
    """Answer this in place of the server, which does not see the request."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


Fault: TypeAlias = Answer | Literal["lost", "cut"]
"""`lost`: the server does it, and the connection ends without an answer. `cut`: it ends in the middle of the answer's body."""


class CountingProxy:
    """What a proxy does, and has seen.

    requests: All of them, in order.
    delay: Seconds before each request is passed on.
    fault: What harm is done to a request.
    most_at_once: The most requests that were under way at a time.
    """

    def __init__(self, upstream: int) -> None:
        self.upstream = upstream
        self.port = 0
        self.requests: list[Request] = []
        self.delay = 0.0
        self.fault: Callable[[Request], Fault | None] = lambda request: None
        self.most_at_once = 0
        self._at_once = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def count(self) -> Counter[str]:
        """How many requests there were of each method; `LIST` for those that list."""
        return Counter("LIST" if request.is_list else request.method for request in self.requests)

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A connection of a client."""
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self.upstream)
        with closing(server_writer):
            while head := await _head(reader):
                body = await _body(reader, head, is_answer=False)
                request = _parsed(head, len(body))
                self.requests.append(request)
                self._at_once += 1
                self.most_at_once = max(self.most_at_once, self._at_once)
                try:
                    await asyncio.sleep(self.delay)
                    fault = self.fault(request)
                    if isinstance(fault, Answer):
                        writer.write(_written(fault, request.method))
                        await writer.drain()
                        continue
                    server_writer.write(head + body)
                    answer = await _head(server_reader)
                    content = b"" if request.method == "HEAD" else await _body(server_reader, answer, is_answer=True)
                finally:
                    self._at_once -= 1
                if fault == "lost":
                    return
                writer.write(answer + (content[: len(content) // 2] if fault == "cut" else content))
                await writer.drain()
                if fault == "cut":
                    return


@asynccontextmanager
async def counting_proxy(upstream: int) -> AsyncIterator[CountingProxy]:
    """A proxy before the server on the port `upstream` of this machine."""
    proxy = CountingProxy(upstream)
    async with tcp_server(proxy.handle) as server:
        proxy.port = port(server)
        yield proxy


async def _head(reader: asyncio.StreamReader) -> bytes:
    """The first lines of a message; nothing where no message comes any more."""
    try:
        return await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return b""


async def _body(reader: asyncio.StreamReader, head: bytes, *, is_answer: bool) -> bytes:
    """The body, as it comes."""
    headers = _headers(head)
    if is_answer and head.split(b" ", 2)[1] in (b"204", b"304"):
        return b""
    if headers.get("transfer-encoding") != "chunked":
        return await reader.readexactly(int(headers.get("content-length", "0")))
    body = b""
    while True:
        line = await reader.readuntil(b"\r\n")
        body += line + await reader.readexactly(int(line.split(b";")[0], 16) + 2)
        if line.strip() == b"0":
            return body


def _headers(head: bytes) -> dict[str, str]:
    lines = head.decode("latin-1").split("\r\n")[1:]
    return {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}


def _parsed(head: bytes, size: int) -> Request:
    method, target, _ = head.decode("latin-1").split("\r\n", 1)[0].split(" ")
    url = urlsplit(target)
    return Request(method, unquote(url.path.removeprefix("/")), url.query, size, _headers(head))


def _written(answer: Answer, method: str) -> bytes:
    headers = {"content-length": str(len(answer.body)), **answer.headers}
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    head = f"HTTP/1.1 {answer.status} Answer\r\n{lines}\r\n".encode()
    return head if method == "HEAD" else head + answer.body
