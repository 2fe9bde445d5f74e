"""A link to a server: counts the bytes that cross it, both ways, and may take time for them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Thread

from tests.tcp_server import port, tcp_server

_PIECE = 1 << 18
"""Bytes that are read at a time."""
_UNDER_WAY = 256
"""Pieces that a direction holds before it takes no more."""


@dataclass(slots=True)
class Link:
    """Where it listens (`host:port`), and what has crossed it: bytes of all connections, and the number of these.

    turns: How often the direction changed, in all connections together. Two turns are a round trip where one call follows another.
    """

    address: str = ""
    up: int = 0
    down: int = 0
    connections: int = 0
    turns: int = 0
    _last_up: bool = field(default=False, repr=False)

    @property
    def total(self) -> int:
        return self.up + self.down

    def count(self, size: int, *, up: bool) -> None:
        """Note bytes that crossed; `up` is to the server."""
        if up:
            self.up += size
        else:
            self.down += size
        self.turns += up is not self._last_up
        self._last_up = up


@contextmanager
def running_link(server: str, round_trip: float = 0) -> Iterator[Link]:
    """A link to `server` (`host:port`) with this time for a round trip, in seconds.

    Each direction delays all bytes by half of it, however many there are: no bandwidth is simulated. A connection takes a round
    trip to make, as TCP's does, and the server hears of it half of one later.
    """
    link = Link()
    loop = asyncio.new_event_loop()
    stop: asyncio.Future[None] = loop.create_future()
    started: asyncio.Future[None] = loop.create_future()

    async def serve() -> None:
        async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await _carry(reader, writer, server, round_trip, link)

        async with tcp_server(carry) as listener:
            link.address = f"127.0.0.1:{port(listener)}"
            started.set_result(None)
            await stop

    serving = loop.create_task(serve())
    loop.run_until_complete(started)
    thread = Thread(target=loop.run_until_complete, args=(serving,))
    thread.start()
    try:
        yield link
    finally:
        loop.call_soon_threadsafe(stop.set_result, None)
        thread.join()
        loop.close()


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, server: str, round_trip: float, link: Link) -> None:
    """One connection, to its end."""
    link.connections += 1
    host, _, port = server.rpartition(":")
    made = asyncio.get_running_loop().time() + round_trip
    far_reader, far_writer = await asyncio.open_connection(host, int(port))
    try:
        async with asyncio.TaskGroup() as directions:
            directions.create_task(_direction(reader, far_writer, round_trip / 2, made, link, up=True))
            directions.create_task(_direction(far_reader, writer, round_trip / 2, made, link, up=False))
        far_writer.close()
        await far_writer.wait_closed()
    except* OSError:
        pass
    finally:
        far_writer.transport.abort()


async def _direction(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay: float, made: float, link: Link, *, up: bool
) -> None:
    """Hand on what comes, each piece `delay` seconds after it came. The client sends nothing before the connection is `made`, and
    the server nothing before it can know of that.
    """
    loop = asyncio.get_running_loop()
    line: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_UNDER_WAY)

    async def deliver() -> None:
        while True:
            due, piece = await line.get()
            await asyncio.sleep(max(0, due - loop.time()))
            if not piece:
                writer.write_eof()
                return
            writer.write(piece)
            await writer.drain()

    async with asyncio.TaskGroup() as both:
        both.create_task(deliver())
        piece = b"?"
        while piece:
            piece = await reader.read(_PIECE)
            link.count(len(piece), up=up)
            sent = max(made if up else made + delay, loop.time())
            await line.put((sent + delay, piece))
