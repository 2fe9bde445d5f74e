"""Channel: calls to a server over one connection at a time, which is made when it is needed and made again when it is lost."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import AsyncIterable, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import chain, repeat
from typing import TypeAlias

from aiohappyeyeballs import start_connection

from tvix_store import __version__
from tvix_store.backends.grpc.address import ServerAddress
from tvix_store.backends.grpc.call_error import CallError
from tvix_store.backends.grpc.http2 import Http2
from tvix_store.backends.grpc.stream import Stream
from tvix_store.errors import InvalidError
from tvix_store.protocol.status import Status

Metadata: TypeAlias = Sequence[tuple[str, str]]
"""Names, in lower case, and values that go before the first message of a call."""

STALL = 600.0
"""Seconds in which a message must have gone, or the next of many have come."""
THOROUGH = 3600.0
"""Seconds for a call that may read all content of a store path."""
_CONNECTING = 20.0
"""Seconds in which a connection must be made, TLS and all."""
_NEXT_ADDRESS = 0.25
"""Seconds after which the next IP address of a server is tried too. Source: RFC 8305, Happy Eyeballs."""
_PAUSES = (0.1, 0.2, 0.4, 0.8, 1.0)
"""Seconds between the attempts of a caller that waits for a server. The last value is used from then on."""
_ROOTS = "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH"
"""The variable in which gRPC's clients look for a file of authorities."""


@asynccontextmanager
async def within(seconds: float, failure: str) -> AsyncIterator[None]:
    """Let the body take so long.

    Raises:
        CallError: (DEADLINE_EXCEEDED) it took longer.
    """
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise CallError(Status.DEADLINE_EXCEEDED, f"{failure} within {seconds:g} seconds") from None


class Channel:
    """Calls to the server at `address`. Belongs to the running event loop."""

    def __init__(self, address: ServerAddress, tls: ssl.SSLContext | None) -> None:
        self._address = address
        self._tls = tls
        self._http2: Http2 | None = None
        self._connecting: asyncio.Task[Http2] | None = None
        self._request = (
            (b":method", b"POST"),
            (b":scheme", b"https" if tls else b"http"),
            (b":authority", address.authority.encode()),
        )
        self._fields = (
            (b"te", b"trailers"),
            (b"content-type", b"application/grpc"),
            (b"user-agent", f"tvix-store-python/{__version__}".encode()),
        )

    async def unary(self, path: str, message: bytes, *, seconds: float, wait: bool = False) -> bytes | None:
        """One message for one, if the server sends one. `wait` for a server that is not there yet.

        Raises:
            CallError: the call ended with another status than OK, or took more than `seconds`.
        """
        async with within(seconds, "no answer"):
            if wait:
                await self._wait()
            deadline = ((b"grpc-timeout", b"%dm" % (seconds * 1000)),)
            async with self._call(path, deadline) as stream:
                await stream.send(message, last=True)
                return await stream.only_message()

    @asynccontextmanager
    async def receive(self, path: str, message: bytes) -> AsyncIterator[Stream]:
        """One message for many; the call goes on until the end of the context.

        Raises:
            CallError: there is no connection, or it was lost.
        """
        async with self._call(path) as stream:
            await stream.send(message, last=True)
            yield stream

    async def upload(self, path: str, messages: AsyncIterable[bytes], metadata: Metadata) -> bytes | None:
        """Many messages for one, if the server sends one. They are sent as far as the server wants them.

        Raises:
            CallError: the call ended with another status than OK.
        """
        fields = [(name.encode(), value.encode()) for name, value in metadata]
        async with self._call(path, fields) as stream:
            async for message in messages:
                async with within(STALL, "the server took nothing"):
                    wants_more = await stream.send(message)
                if not wants_more:
                    break
            await stream.finish()
            async with within(THOROUGH, "no answer"):
                return await stream.only_message()

    async def close(self) -> None:
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.wait((self._connecting,))
            if not self._connecting.cancelled() and self._connecting.exception() is None:
                await self._connecting.result().close()

    @asynccontextmanager
    async def _call(self, path: str, fields: Sequence[tuple[bytes, bytes]] = ()) -> AsyncIterator[Stream]:
        http2 = self._http2
        if http2 is None or not http2.usable:
            http2 = await self._connected()
        stream = await http2.call((*self._request, (b":path", path.encode()), *self._fields, *fields))
        try:
            yield stream
        finally:
            stream.close()

    async def _wait(self) -> None:
        """Return when there is a connection."""
        for pause in chain(_PAUSES, repeat(_PAUSES[-1])):
            try:
                await self._connected()
            except CallError:
                await asyncio.sleep(pause)
            else:
                return

    async def _connected(self) -> Http2:
        """The connection. All callers wait for the same attempt. It goes on if one of them gives up."""
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
            async with asyncio.timeout(_CONNECTING):
                if address.is_socket:
                    _, http2 = await loop.create_unix_connection(Http2, address.path)
                else:
                    # Not by `create_connection` alone: that of uvloop, the loop of a daemon, tries one address after the other.
                    found = await loop.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
                    connected = await start_connection(found, happy_eyeballs_delay=_NEXT_ADDRESS)
                    host = None if self._tls is None else address.host
                    _, http2 = await loop.create_connection(Http2, sock=connected, ssl=self._tls, server_hostname=host)
                await http2.ready
        except BaseException as error:
            if http2 is not None:
                http2.abort(CallError(Status.UNAVAILABLE, "the connection was given up"))
            if isinstance(error, TimeoutError):
                raise CallError(Status.UNAVAILABLE, f"no connection within {_CONNECTING:g} seconds") from None
            if isinstance(error, OSError):  # those of TLS too
                raise CallError(Status.UNAVAILABLE, _words(error) or self._closed()) from error
            raise
        return http2

    def _closed(self) -> str:
        """Words for an end without any: a server that speaks no TLS hangs up on a greeting that it does not understand."""
        return "the server closed the connection" + ("; does it speak TLS?" if self._tls is not None else "")


def _seen(attempt: asyncio.Task[Http2]) -> None:
    """Look at how an attempt has failed: perhaps nobody waits for it any more."""
    if not attempt.cancelled():
        attempt.exception()


def _words(error: OSError) -> str:
    if isinstance(error, ssl.SSLError | socket.gaierror) or not error.errno:
        return error.strerror or str(error)
    return os.strerror(error.errno)  # asyncio's words for it are its own


def tls_context(address: ServerAddress) -> ssl.SSLContext | None:
    """How to speak TLS to the server, if so.

    Raises:
        InvalidError: the file of authorities cannot be read.
    """
    if not address.tls:
        return None
    authorities = address.ca or os.environ.get(_ROOTS) or None
    try:
        context = ssl.create_default_context(cafile=authorities)
    except OSError as error:
        raise InvalidError(
            f"{address.name}: cannot read the authorities to trust, {authorities}: {error.strerror or error}"
        ) from None
    context.set_alpn_protocols(["h2"])
    return context
