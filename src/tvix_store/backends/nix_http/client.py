"""HttpClient: GETs from one origin, and from its redirects, and PUTs to it. Time and size are bounded, and no answer is trusted."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from typing import IO
from urllib.parse import urljoin

import aiohttp
from yarl import URL

from tvix_store import __version__
from tvix_store.backends.nix_http.forbidden import REFUSAL, guarded_socket, is_forbidden_host
from tvix_store.client_environment.credentials import Credentials
from tvix_store.client_environment.proxies import Proxies
from tvix_store.client_environment.unreachable import words_of
from tvix_store.services.upstream import UpstreamDownError, UpstreamLiesError, UpstreamStalledError
from tvix_store.telemetry import spans

_REDIRECTS = (301, 302, 303, 307, 308)
_MAX_REDIRECTS = 5
_AT_ONCE = 64
"""Requests under way at the same time; others wait. Nix has 25, for one machine. 2,000 narinfos 20 ms away took 2 s with 24."""
_BUFFER = 1 << 19
"""Bytes of a body at which aiohttp begins to hold the sender back; it does so for good at twice that."""
_LEAST = 256 << 10
"""Bytes of a body that must come within `Timeouts.stalled`: 13 kB/s."""
_DRAINED = 64 << 10
USER_AGENT = f"tvix-store-python/{__version__}"
"""Not `tvix-store/…`: so does another program call itself. Caches offer it NARs uncompressed."""
_DRAIN = 1.0
_PIECE = 256 << 10
"""Bytes of a body that are sent at a time."""
_TAKEN = 300.0
"""Seconds within which a server must take the next piece of a body, and answer to the whole: it may verify a large NAR first."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds. `stalled` is the time for 256 KiB of a body (or for all of a shorter one), and for a whole small document."""

    connect: float = 5.0
    first_byte: float = 15.0
    stalled: float = 20.0


class HttpClient:
    """GETs and PUTs below `base`. Credentials go to the origin of `base` alone. It belongs to the running event loop."""

    def __init__(self, base: URL, *, credentials: Credentials | None, authorities: ssl.SSLContext, timeouts: Timeouts) -> None:
        self.timeouts = timeouts
        self._base = base
        self._authorization = {"Authorization": credentials.header} if credentials else {}
        self._authorities = authorities
        self._room = asyncio.Semaphore(_AT_ONCE)
        self._proxies = Proxies()
        self._trusting = self._session()
        self._guarded = self._session(guarded_socket)

    async def close(self) -> None:
        await self._trusting.close()
        await self._guarded.close()

    @asynccontextmanager
    async def get(self, reference: str, *, start: int = 0) -> AsyncIterator[aiohttp.ClientResponse]:
        """The answer, redirects followed, to a GET of `reference`, which is a URL or relative to `base`; its body is still to come.

        `start` asks for the bytes from there on, which the answer need not heed.

        Raises:
            UpstreamDownError: no answer comes, or no body.
            UpstreamStalledError: not in time.
            UpstreamLiesError: it leads where it must not.
        """
        async with self._room:
            url = self._resolved(self._base, reference)
            with _failures_told(url):
                response = await self._answer(url, {"Range": f"bytes={start}-"} if start else {})
                try:
                    yield response
                finally:
                    # Not `release`: what is left of a body is not wanted. After its end the connection is free already.
                    response.close()

    @asynccontextmanager
    async def head(self, reference: str) -> AsyncIterator[aiohttp.ClientResponse]:
        """The answer to a HEAD of `reference`, as `get`; redirects are not followed."""
        async with self._room:
            url = self._resolved(self._base, reference)
            with _failures_told(url):
                async with await self._ask(
                    url, self._authorization | dict(spans.outgoing()), trusting=True, method="HEAD"
                ) as answer:
                    yield answer

    @asynccontextmanager
    async def put(self, reference: str, body: IO[bytes], size: int, content_type: str) -> AsyncIterator[aiohttp.ClientResponse]:
        """The answer to a PUT of `body`, which has `size` bytes, at `reference`, relative to `base`. Redirects are not followed.

        Raises:
            UpstreamDownError: as `get`, or the server takes nothing any more.
        """
        fields = {
            "Content-Type": content_type,
            "Content-Length": str(size),
            # So a server can refuse before all of it is on its way, as Nix has it.
            **({"Expect": "100-continue"} if size > _DRAINED else {}),
        }

        async def pieces(limit: asyncio.Timeout) -> AsyncIterator[bytes]:
            while piece := await asyncio.to_thread(body.read, _PIECE):
                yield piece
                limit.reschedule(_now() + _TAKEN)

        async with self._room:
            url = self._resolved(self._base, reference)
            with _failures_told(url):
                headers = self._authorization | fields | dict(spans.outgoing())
                async with await self._ask(url, headers, trusting=True, method="PUT", body=pieces) as answer:
                    yield answer

    async def body(self, response: aiohttp.ClientResponse) -> AsyncGenerator[bytes, None]:
        """The pieces of a body as they come over the wire. To be used within `get`.

        Raises:
            TimeoutError: it stalls.
        """
        waited, since = 0.0, 0
        clock = asyncio.get_running_loop().time
        while True:
            # Only waiting counts: a consumer may take its time.
            before = clock()
            async with asyncio.timeout(self.timeouts.stalled - waited):
                piece = await response.content.readany()
            if not piece:
                return
            waited, since = waited + clock() - before, since + len(piece)
            if since >= _LEAST:
                waited, since = 0.0, 0
            yield piece

    async def drain(self, response: aiohttp.ClientResponse) -> None:
        """Read a body that nobody wants, if it is small and comes soon, so that the connection can be used again."""
        left = _DRAINED
        with suppress(aiohttp.ClientError, TimeoutError):
            async with asyncio.timeout(_DRAIN), aclosing(self.body(response)) as pieces:
                async for piece in pieces:
                    left -= len(piece)
                    if left < 0:
                        return

    async def _answer(self, url: URL, wishes: dict[str, str]) -> aiohttp.ClientResponse:
        """The first answer that is no redirect."""
        wishes = {**wishes, **dict(spans.outgoing())}
        headers = self._authorization | wishes
        for _ in range(_MAX_REDIRECTS + 1):
            at_home = url.origin() == self._base.origin()
            if not at_home:
                headers = wishes  # without credentials, and they stay away, wherever the way leads then
            response = await self._ask(url, headers, trusting=at_home)
            if response.status not in _REDIRECTS:
                return response
            location = response.headers.get("Location")
            await self.drain(response)
            response.close()
            if location is None:
                raise UpstreamLiesError(f"{shown(str(url))} redirects to nowhere")
            url = self._resolved(url, location)
        raise UpstreamLiesError(f"{shown(str(url))} is behind more than {_MAX_REDIRECTS} redirects")

    async def _ask(
        self,
        url: URL,
        headers: dict[str, str],
        *,
        trusting: bool,
        method: str = "GET",
        body: Callable[[asyncio.Timeout], AsyncIterator[bytes]] | None = None,
    ) -> aiohttp.ClientResponse:
        """The answer. `body` makes the pieces of a body, and puts the end of the patience off while they are taken."""
        if not trusting and is_forbidden_host(url.raw_host or ""):
            raise UpstreamLiesError(f"it leads to {url.raw_host}, {REFUSAL}")
        proxy = self._proxies.proxy_of(url)
        # The address of a proxy is the operator's choice; what the proxy connects to cannot be seen from here.
        session = self._trusting if trusting or proxy is not None else self._guarded
        known_there = {}
        if proxy is not None and proxy.user is not None:
            known_there = {"Proxy-Authorization": Credentials(proxy.user, proxy.password or "").header}
        tunnelled = url.scheme == "https"  # the proxy sees only what asks for the tunnel
        patience = self.timeouts.connect + (self.timeouts.first_byte if body is None else _TAKEN)
        async with asyncio.timeout(patience) as limit:
            return await session.request(
                method,
                url,
                data=None if body is None else body(limit),
                headers=headers if tunnelled else headers | known_there,
                allow_redirects=False,
                proxy=proxy.with_user(None) if proxy else None,
                proxy_headers=known_there if tunnelled else None,
            )

    def _resolved(self, base: URL, reference: str) -> URL:
        """Where `reference`, which an upstream wrote, leads from `base`.

        Raises:
            UpstreamLiesError: it is not a URL of HTTP.
        """
        if not (reference.isascii() and reference.isprintable()) or " " in reference:
            raise UpstreamLiesError(f"it leads to {shown(reference)[:100]!r}, which is not a URL")
        try:
            # As it stands, byte by byte: signed URLs are not to be normalised.
            url = URL(urljoin(str(base), reference), encoded=True)
            usable = url.scheme in ("http", "https") and bool(url.host and url.port) and url.user is None and url.password is None
        except ValueError:
            usable = False
        if not usable:
            raise UpstreamLiesError(f"it leads to {shown(reference)[:100]!r}, which is not a URL of HTTP without credentials")
        return url.with_fragment(None)

    def _session(self, socket_factory: Callable[..., object] | None = None) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=0,  # `_room` is the limit, and waiting for it does not count as waiting for an answer
                ssl=self._authorities,
                socket_factory=socket_factory,  # type: ignore[arg-type]
            ),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=self.timeouts.connect),
            headers={"Accept-Encoding": "identity", "User-Agent": USER_AGENT},
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            read_bufsize=_BUFFER,
        )


@contextmanager
def _failures_told(url: URL) -> Iterator[None]:
    """What goes wrong with a request becomes an error of ours."""
    try:
        yield
    except TimeoutError:
        raise UpstreamStalledError(f"{shown(str(url))} does not answer in time") from None
    except aiohttp.ClientConnectorError as error:
        if _is_forbidden(error.os_error):
            raise UpstreamLiesError(f"{shown(str(url))}: {error.os_error}") from None
        raise UpstreamDownError(f"{shown(str(url))} cannot be reached: {words_of(error.os_error) or error.os_error}") from None
    except aiohttp.ClientResponseError as error:  # its text holds the whole URL
        raise UpstreamDownError(f"{shown(str(url))}: {error.message or type(error).__name__}") from None
    except (aiohttp.ClientError, OSError) as error:
        raise UpstreamDownError(f"{shown(str(url))}: {str(error) or type(error).__name__}") from None


def _now() -> float:
    return asyncio.get_running_loop().time()


def _is_forbidden(error: OSError) -> bool:
    """Whether that is why there is no connection. Of several addresses aiohttp joins the errors into one of their texts."""
    return REFUSAL in str(error)


def shown(reference: str) -> str:
    """A URL, or one relative to another, for messages: without the query, which may be a signature, and without credentials."""
    scheme, separator, rest = reference.partition("?")[0].partition("#")[0].rpartition("//")
    host, slash, path = rest.partition("/")
    return f"{scheme}{separator}{host.rpartition('@')[2]}{slash}{path}"[:300]
