"""ConnectChannel: calls over plain HTTP/1.1, in the Connect protocol. Source: connectrpc.com/docs/protocol."""

from __future__ import annotations

import asyncio
import io
import ssl
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterable, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from itertools import chain, repeat

import aiohttp
from yarl import URL

from tvix_store import __version__
from tvix_store.backends.grpc.address import ServerAddress
from tvix_store.backends.grpc.call_error import CallError
from tvix_store.backends.grpc.channel import CONNECTING, PAUSES, STALL, THOROUGH, Metadata, only_message, within
from tvix_store.backends.grpc.connect_answer import ConnectStream, failures_told, unary_answer
from tvix_store.backends.grpc.envelopes import enveloped
from tvix_store.backends.grpc.outgoing import Outgoing, gathered
from tvix_store.client_environment.proxies import Proxies
from tvix_store.protocol import connect
from tvix_store.protocol.status import Status
from tvix_store.telemetry import spans

_AT_ONCE = 16
"""Connections. Further calls wait for one: over HTTP/1.1, each call has a connection of its own."""
_BUFFER = 1 << 19
"""Bytes of an answer at which aiohttp begins to hold the sender back; it does so for good at twice that."""
_AT_A_TIME = 1 << 18
"""Bytes of a body that are handed to the connection in one step."""
_LONGEST_QUERY = 1024
"""Bytes of a message that goes into a URL. Servers and proxies take URLs of at least 4 KiB."""


class ConnectChannel:
    """A Channel to the server at `address`. `tls` is how to speak TLS, if so. Streams go one way, and then the other."""

    def __init__(self, address: ServerAddress, tls: ssl.SSLContext | None) -> None:
        self._base = URL(address.url, encoded=True)
        self._most_sent = address.max_body
        self._proxy = Proxies().proxy_of(self._base)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=_AT_ONCE, ssl=tls if tls is not None else True),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECTING),
            headers={
                "Accept-Encoding": "identity",
                "User-Agent": f"tvix-store-python/{__version__}",
                **({"Authorization": address.authorization} if address.authorization else {}),
            },
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            read_bufsize=_BUFFER,
        )

    async def unary(
        self, path: str, message: bytes, *, seconds: float, wait: bool = False, immutable: bool = False
    ) -> bytes | None:
        async with within(seconds, "no answer"):
            for pause in chain(PAUSES if wait else (), repeat(PAUSES[-1])):
                try:
                    return await self._unary(path, message, seconds, immutable=immutable)
                except CallError as error:
                    if not wait or error.status is not Status.UNAVAILABLE:
                        raise
                await asyncio.sleep(pause)
        raise AssertionError  # the loop has no end

    @asynccontextmanager
    async def receive(self, path: str, message: bytes) -> AsyncIterator[ConnectStream]:
        async def ask() -> aiohttp.ClientResponse:
            return await self._post(path, connect.STREAM, enveloped(message))

        stream = ConnectStream(ask)
        try:
            yield stream
        finally:
            stream.close()

    async def upload(self, path: str, messages: AsyncIterable[bytes], metadata: Metadata) -> bytes | None:
        # What fits one body is sent with its length: some proxies take nothing else.
        body, rest = await gathered(messages, self._most_sent)
        outgoing = Outgoing(body, rest) if rest is not None else None

        async def ask() -> aiohttp.ClientResponse:
            return await self._post(path, connect.STREAM, body if outgoing is None else outgoing, dict(metadata))

        stream = ConnectStream(ask)
        try:
            if outgoing is None:
                async with within(THOROUGH, "no answer"):
                    return await only_message(stream)
            async with outgoing.watched(STALL, THOROUGH):
                return await only_message(stream)
        finally:
            stream.close()
            if outgoing is not None:
                await outgoing.left()

    async def close(self) -> None:
        await self._session.close()

    async def _unary(self, path: str, message: bytes, seconds: float, *, immutable: bool) -> bytes:
        with failures_told():
            if immutable and len(message) <= _LONGEST_QUERY:
                # In this order, without padding: caches know an answer by its whole URL.
                text = urlsafe_b64encode(message).rstrip(b"=").decode()
                url = self._url(path, f"?connect=v1&encoding=proto&base64=1&message={text}")
                response = await self._session.get(url, headers=dict(spans.outgoing()), allow_redirects=False, proxy=self._proxy)
            else:
                response = await self._post(path, connect.UNARY, message, {"Connect-Timeout-Ms": str(int(seconds * 1000))})
            try:
                return await unary_answer(response)
            finally:
                response.close()

    async def _post(
        self, path: str, content_type: str, body: bytes | AsyncIterable[bytes], fields: Mapping[str, str] | None = None
    ) -> aiohttp.ClientResponse:
        headers = {"Content-Type": content_type, "Connect-Protocol-Version": "1", **(fields or {}), **dict(spans.outgoing())}
        data = io.BytesIO(body) if isinstance(body, bytes) and len(body) > _AT_A_TIME else body
        return await self._session.post(self._url(path), headers=headers, data=data, allow_redirects=False, proxy=self._proxy)

    def _url(self, path: str, query: str = "") -> URL:
        return URL(f"{self._base}{path}{query}", encoded=True)
