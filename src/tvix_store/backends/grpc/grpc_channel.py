"""GrpcChannel: calls over gRPC, by one connection at a time, which is made when it is needed and made again when it is lost."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterable, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import chain, repeat
from weakref import WeakSet

from aiohappyeyeballs import start_connection

from tvix_store import __version__
from tvix_store.backends.grpc.address import ServerAddress
from tvix_store.backends.grpc.call_error import CallError
from tvix_store.backends.grpc.channel import (
    CONNECTING,
    PAUSES,
    STALL,
    THOROUGH,
    Metadata,
    only_message,
    within,
)
from tvix_store.backends.grpc.http2 import Http2
from tvix_store.backends.grpc.stream import Stream
from tvix_store.client_environment.unreachable import unreachable
from tvix_store.protocol.status import Status
from tvix_store.telemetry import spans

_NEXT_ADDRESS = 0.25
"""Seconds after which the next IP address of a server is tried too. Source: RFC 8305, Happy Eyeballs."""


class GrpcChannel:
    """A Channel to the server at `address`. `tls` is how to speak TLS, if so."""

    def __init__(self, address: ServerAddress, tls: ssl.SSLContext | None) -> None:
        self._address = address
        self._tls = tls
        self._http2: Http2 | None = None
        self._connecting: asyncio.Task[Http2] | None = None
        # A server that is going away ends its connection when the calls on it are over; there is another one by then.
        self._connections: WeakSet[Http2] = WeakSet()
        self._is_open = True
        self._request = (
            (b":method", b"POST"),
            (b":scheme", b"https" if tls else b"http"),
            (b":authority", address.authority.encode()),
        )
        self._prefix = address.prefix.encode()
        self._fields = (
            (b"te", b"trailers"),
            (b"content-type", b"application/grpc"),
            (b"user-agent", f"tvix-store-python/{__version__}".encode()),
            *([(b"authorization", address.authorization.encode())] if address.authorization else ()),
        )

    async def unary(
        self, path: str, message: bytes, *, seconds: float, wait: bool = False, immutable: bool = False
    ) -> bytes | None:
        del immutable  # no cache on the way understands gRPC
        async with within(seconds, "no answer"):
            if wait:
                await self._wait()
            deadline = ((b"grpc-timeout", b"%dm" % (seconds * 1000)),)
            async with self._call(path, deadline) as stream:
                await stream.send(message, last=True)
                return await only_message(stream)

    @asynccontextmanager
    async def receive(self, path: str, message: bytes) -> AsyncIterator[Stream]:
        async with self._call(path) as stream:
            await stream.send(message, last=True)
            yield stream

    async def upload(self, path: str, messages: AsyncIterable[bytes], metadata: Metadata) -> bytes | None:
        fields = [(name.encode(), value.encode()) for name, value in metadata]
        async with self._call(path, fields) as stream:
            async for message in messages:
                async with within(STALL, "the server took nothing"):
                    wants_more = await stream.send(message)
                if not wants_more:
                    break
            await stream.finish()
            async with within(THOROUGH, "no answer"):
                return await only_message(stream)

    async def close(self) -> None:
        self._is_open = False
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.wait((self._connecting,))
        for http2 in list(self._connections):
            await http2.close()

    @asynccontextmanager
    async def _call(self, path: str, fields: Sequence[tuple[bytes, bytes]] = ()) -> AsyncIterator[Stream]:
        http2 = self._http2
        if http2 is None or not http2.usable:
            http2 = await self._connected()
        traced = [(name.encode(), value.encode()) for name, value in spans.outgoing()]
        stream = await http2.call((*self._request, (b":path", self._prefix + path.encode()), *self._fields, *fields, *traced))
        try:
            yield stream
        finally:
            stream.close()

    async def _wait(self) -> None:
        """Return when there is a connection."""
        for pause in chain(PAUSES, repeat(PAUSES[-1])):
            try:
                await self._connected()
            except CallError:
                await asyncio.sleep(pause)
            else:
                return

    async def _connected(self) -> Http2:
        """The connection. All callers wait for the same attempt. It goes on if one of them gives up."""
        if not self._is_open:  # a call that ended with the connection is repeated, and nobody would close another one
            raise CallError(Status.CANCELLED, "the connection is closed")
        if self._http2 is not None and self._http2.usable:
            return self._http2
        if self._connecting is None or self._connecting.done():
            self._connecting = asyncio.create_task(self._connect())
            self._connecting.add_done_callback(_seen)
        self._http2 = await asyncio.shield(self._connecting)
        return self._http2

    async def _connect(self) -> Http2:
        loop = asyncio.get_running_loop()
        address = self._address
        http2: Http2 | None = None
        try:
            async with asyncio.timeout(CONNECTING):
                if address.is_socket:
                    _, http2 = await loop.create_unix_connection(self._new_http2, address.path)
                else:
                    # Not by `create_connection` alone: that of uvloop, the loop of a daemon, tries one address after the other.
                    host = address.host.encode() if address.host.isascii() else address.host  # else Python's IDNA takes 8 ms
                    found = await loop.getaddrinfo(host, address.port, type=socket.SOCK_STREAM)
                    connected = await start_connection(found, happy_eyeballs_delay=_NEXT_ADDRESS)
                    name = None if self._tls is None else address.host
                    _, http2 = await loop.create_connection(self._new_http2, sock=connected, ssl=self._tls, server_hostname=name)
                await http2.ready
        except BaseException as error:
            if http2 is not None:
                http2.abort(CallError(Status.UNAVAILABLE, "the connection was given up"))
            if isinstance(error, TimeoutError):
                raise CallError(Status.UNAVAILABLE, f"no connection within {CONNECTING:g} seconds") from None
            if isinstance(error, OSError):  # those of TLS too
                raise CallError(Status.UNAVAILABLE, unreachable(error) or self._closed()) from error
            raise
        return http2

    def _new_http2(self) -> Http2:
        http2 = Http2()
        self._connections.add(http2)
        return http2

    def _closed(self) -> str:
        """Words for an end without any: a server that speaks no TLS hangs up on a greeting that it does not understand."""
        return "the server closed the connection" + ("; does it speak TLS?" if self._tls is not None else "")


def _seen(attempt: asyncio.Task[Http2]) -> None:
    """Look at how an attempt has failed: perhaps nobody waits for it any more."""
    if not attempt.cancelled():
        attempt.exception()
