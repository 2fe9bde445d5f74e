"""Binary caches that behave, and that do not: an HTTP/1.1 server on a real socket, whose every byte a test decides."""

from __future__ import annotations

import asyncio
import hashlib
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any

from tests.tcp_server import port, tcp_server
from tvix_store.model import nixbase32
from tvix_store.model.narinfo import NarInfo
from tvix_store.model.nix_hash import NixHash
from tvix_store.model.path_info import NarFacts
from tvix_store.model.signature import SecretKey
from tvix_store.model.store_path import StorePath
from tvix_store.testing import trees
from tvix_store.testing.content import noise
from tvix_store.testing.trees import Tree, TreeFile

KEY = SecretKey.from_seed("upstream-1", noise(32, "upstream"))
STRANGER = SecretKey.from_seed("stranger-1", noise(32, "stranger"))


@dataclass(frozen=True)
class Request:
    path: str
    headers: Mapping[str, str]


Behaviour = Callable[[asyncio.StreamWriter], Awaitable[None]]
"""Answers a request by writing to the connection, which is closed then."""


@dataclass
class CacheServer:
    """Answers GETs of what is in `answers`, by path, with 404 else; remembers what was asked."""

    port: int = 0
    answers: dict[str, bytes | Behaviour] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    host: str = "127.0.0.1"
    connections: int = 0

    @property
    def origin(self) -> str:
        return f"http://{self.host}:{self.port}"

    @property
    def url(self) -> str:
        """The address of the cache, with its key."""
        return f"{self.origin}?trusted-public-keys={KEY.public}"

    def asked(self, path: str) -> int:
        """How often `path` was asked for."""
        return sum(request.path == path for request in self.requests)

    def publish(self, path: CachedPath) -> CachedPath:
        self.answers[path.narinfo_path] = path.narinfo.format()
        self.answers["/" + path.narinfo.url] = path.file
        return path

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with suppress(OSError, asyncio.IncompleteReadError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                path = head[0].split(" ")[1]
                headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
                self.requests.append(Request(path, headers))
                answer = self.answers.get(path)
                if callable(answer):
                    await answer(writer)
                    if getattr(answer, "keeps_the_connection", False):
                        continue
                    break
                status = "404 Not Found" if answer is None else "200 OK"
                writer.write(f"HTTP/1.1 {status}\r\nContent-Length: {len(answer or b'')}\r\n\r\n".encode() + (answer or b""))
                await writer.drain()


@asynccontextmanager
async def serving(host: str = "127.0.0.1", tls: ssl.SSLContext | None = None) -> AsyncIterator[CacheServer]:
    """An empty cache that listens on a free port."""
    cache = CacheServer(host=host)
    cache.answers["/nix-cache-info"] = b"StoreDir: /nix/store\nPriority: 40\n"
    async with tcp_server(cache.serve, host, tls) as server:
        cache.port = port(server)
        yield cache


@dataclass(frozen=True)
class CachedPath:
    """A store path as a cache offers it: its narinfo, and the file with its NAR."""

    narinfo: NarInfo
    file: bytes
    nar: bytes

    @property
    def output_hash(self) -> bytes:
        return self.narinfo.store_path.output_hash

    @property
    def narinfo_path(self) -> str:
        return f"/{nixbase32.encode(self.output_hash)}.narinfo"

    @property
    def nar_path(self) -> str:
        return "/" + self.narinfo.url

    def but(self, *, signed: bool = True, **changes: Any) -> CachedPath:
        """The same path with another narinfo, signed anew, or as it was signed before."""
        narinfo = replace(self.narinfo, **changes)
        return replace(self, narinfo=_signed(narinfo, KEY) if signed else narinfo)


def cached(
    tree: Tree | bytes = b"content",
    name: str = "path",
    *,
    key: SecretKey | None = KEY,
    compression: str = "none",
    compress: Callable[[bytes], bytes] = bytes,
    file_facts: bool = True,
) -> CachedPath:
    """A path of its own name that holds `tree`."""
    nar = trees.nar(TreeFile(tree) if isinstance(tree, bytes) else tree)
    file = compress(nar)
    narinfo = NarInfo(
        store_path=StorePath(noise(20, name), name),
        url=f"nar/{nixbase32.encode(hashlib.sha256(file).digest())}.nar",
        compression=compression,
        nar=NarFacts(len(nar), hashlib.sha256(nar).digest()),
        file_hash=NixHash("sha256", hashlib.sha256(file).digest()) if file_facts else None,
        file_size=len(file) if file_facts else None,
    )
    return CachedPath(_signed(narinfo, key) if key else narinfo, file, nar)


def _signed(narinfo: NarInfo, key: SecretKey) -> NarInfo:
    return replace(narinfo, signatures=(key.sign(narinfo.fingerprint()),))


def redirect(location: str, status: int = 302) -> Behaviour:
    return raw(f"HTTP/1.1 {status} Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode())


def status(code: int) -> Behaviour:
    return raw(f"HTTP/1.1 {code} No\r\nContent-Length: 0\r\n\r\n".encode())


def body(data: bytes, status: str) -> Behaviour:
    """Any status with a body; the connection stays."""

    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(f"HTTP/1.1 {status}\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data)
        await writer.drain()

    answer.keeps_the_connection = True  # type: ignore[attr-defined]
    return answer


def encoded(body: bytes, encoding: str) -> Behaviour:
    return raw(f"HTTP/1.1 200 OK\r\nContent-Encoding: {encoding}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)


def raw(data: bytes) -> Behaviour:
    """Write `data`, and close."""

    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()

    return answer


def stalling(data: bytes = b"") -> Behaviour:
    """Write `data`, and then nothing, for ever."""

    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()
        await asyncio.sleep(3600)

    return answer


def endless(head: bytes, piece: bytes = bytes(1 << 16)) -> Behaviour:
    """Write `head`, and then `piece` again and again."""

    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(head)
        while True:
            writer.write(piece)
            await writer.drain()

    return answer


def dripping(head: bytes, pause: float) -> Behaviour:
    """Write `head`, and then a byte now and then."""

    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(head)
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(pause)

    return answer


class Gate:
    """A whole answer that waits until it is opened."""

    def __init__(self, body: bytes) -> None:
        self.opened = asyncio.Event()
        self.reached = asyncio.Event()
        self.left = asyncio.Event()
        self._body = body

    async def __call__(self, writer: asyncio.StreamWriter) -> None:
        self.reached.set()
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(self._body)}\r\n\r\n".encode()
        half = len(self._body) // 2
        writer.write(head + self._body[:half])
        await writer.drain()
        opening = asyncio.ensure_future(self.opened.wait())
        closed = asyncio.ensure_future(writer.wait_closed())
        await asyncio.wait((opening, closed), return_when=asyncio.FIRST_COMPLETED)
        opening.cancel()
        if closed.done():
            self.left.set()
            return
        closed.cancel()
        writer.write(self._body[half:])
        await writer.drain()


def own_address() -> str | None:
    """An address of this machine that is not loopback, if it has one."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return None
        return str(probe.getsockname()[0])
