"""ClientLimits: an ASGI layer that keeps each client to its share of a worker.

A client is whoever holds a token or a certificate; without these, it is an address. Requests beyond a limit wait for others of the
same client, and clients do not wait for each other.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Container, Coroutine
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Any

from tvix_store.asgi import App, Event, Receive, Send, address_of, certificate_name, grant_of
from tvix_store.errors import InvalidError
from tvix_store.protocol import connect
from tvix_store.rpc.status import Status
from tvix_store.server.refusal import refuse_with_body
from tvix_store.traffic import Client

LEAST_RATE = 64 << 10
"""The least bytes a second that a client may be held to. A slower one could not be told from one that has stopped."""
_WAITING = 1000
"""Requests of a client that wait. Nix has 25 connections with up to 64 requests each, and few of them wait at a time."""
_PATIENCE = 60.0
"""Seconds that a request waits."""
_UPLOAD_PATIENCE = 240.0
"""Seconds that an upload waits. Nix before 2.33 cannot send an upload again, and gives up after 300 s."""
_LONGEST = 10.0
"""Seconds that one piece of a transfer is held back at most. So the clocks for silent clients (30 s) see that it moves."""
_BURST = 0.25
"""Seconds' worth of bytes that a client may move at once after a rest."""
_REMEMBERED = 10_000
"""Clients that are remembered. One that has neither requests nor bytes to pay for is forgotten first."""
_HEALTH = "/grpc.health.v1.Health/"
"""Calls about health, some of which last for days, are not limited."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one client may do at a worker; None for no limit.

    requests: Requests at once.
    uploads: Requests at once that write.
    rate: Bytes a second of answers, and as many of bodies.
    """

    requests: int | None = None
    uploads: int | None = None
    rate: int | None = None

    def __post_init__(self) -> None:
        for value, least in ((self.requests, 1), (self.uploads, 1), (self.rate, LEAST_RATE)):
            if value is not None and value < least:
                raise InvalidError(f"limits must be at least 1 request, 1 upload, and {LEAST_RATE} bytes a second")

    @property
    def are_set(self) -> bool:
        return (self.requests, self.uploads, self.rate) != (None, None, None)


class ClientLimits:
    """Passes requests to `app` when their client has room for them.

    app: The application.
    limits: Those of each client.
    writing: The paths of the gRPC methods that write.
    hang_up: Ends the connection with a client.
    """

    def __init__(self, app: App, limits: Limits, writing: Container[str], hang_up: Callable[[Client], None]) -> None:
        self._app = app
        self._limits = limits
        self._writing = writing
        self._hang_up = hang_up
        self._clients: OrderedDict[str, _Client] = OrderedDict()

    def __call__(self, scope: Event, receive: Receive, send: Send) -> Coroutine[Any, Any, None]:
        if scope["type"] != "http" or scope["path"].startswith(_HEALTH) or not (key := _key(scope)):
            return self._app(scope, receive, send)
        return self._serve(key, scope, receive, send)

    async def _serve(self, key: str, scope: Event, receive: Receive, send: Send) -> None:
        client = self._client(key)
        client.requests += 1
        writes = self._writes(scope)
        held: list[_Places] = []
        try:
            # An upload that waits for others has no place among the requests, or it would keep lookups waiting.
            for places in (client.uploads if writes else None, client.at_once):
                if places is not None:
                    await places.take(_UPLOAD_PATIENCE if writes else _PATIENCE)
                    held.append(places)
            if client.sent is not None and client.received is not None:
                receive, send = _paced_receive(receive, client.received), _paced_send(send, client.sent)
            await self._app(scope, receive, send)
        except _NoRoomError as error:
            # Nix before 2.33 hangs when a PUT is to be tried again.
            status = 413 if scope["method"] == "PUT" else 429
            code, retry = Status.RESOURCE_EXHAUSTED, ((b"retry-after", b"5"),)
            await refuse_with_body(scope, receive, send, status, code, str(error), retry, hang_up=self._hang_up)
        finally:
            for places in held:
                places.give()
            client.requests -= 1

    def _writes(self, scope: Event) -> bool:
        if scope["method"] == "PUT":
            return True
        # Before the prefix of Connect may stand the name of a cache.
        return scope["method"] == "POST" and scope["path"].rpartition(connect.PREFIX)[2] in self._writing

    def _client(self, key: str) -> _Client:
        client = self._clients.get(key)
        if client is None:
            if len(self._clients) >= _REMEMBERED:
                self._forget_one()
            client = self._clients[key] = _Client(self._limits)
        self._clients.move_to_end(key)
        return client

    def _forget_one(self) -> None:
        """Forget the client that came longest ago, unless it is still there; then look at the next ones at the next time."""
        key, client = self._clients.popitem(last=False)
        if client.requests:
            self._clients[key] = client


class _Client:
    """What a client uses at this moment."""

    __slots__ = ("at_once", "received", "requests", "sent", "uploads")

    def __init__(self, limits: Limits) -> None:
        self.requests = 0
        self.at_once = _Places(limits.requests, "requests") if limits.requests else None
        self.uploads = _Places(limits.uploads, "uploads") if limits.uploads else None
        self.sent = Pace(limits.rate) if limits.rate else None
        self.received = Pace(limits.rate) if limits.rate else None


class _NoRoomError(Exception):
    """A client has too much under way."""


class _Places:
    """Places for some requests of a client; the others wait, first come, first served."""

    def __init__(self, count: int, name: str) -> None:
        self._free = asyncio.Semaphore(count)
        self._too_many = f"this client has too many {name} at once (more than {count} of them); try again later"
        self._waiting = 0

    async def take(self, patience: float) -> None:
        """Take a place, and wait for it for some seconds.

        Raises:
            _NoRoomError: there was none in time, or too many requests wait already.
        """
        if not self._free.locked():
            await self._free.acquire()
            return
        if self._waiting >= _WAITING:
            raise _NoRoomError(self._too_many)
        self._waiting += 1
        try:
            async with asyncio.timeout(patience):
                await self._free.acquire()
        except TimeoutError:
            raise _NoRoomError(self._too_many) from None
        finally:
            self._waiting -= 1

    def give(self) -> None:
        """Give it back."""
        self._free.release()


class Pace:
    """Bytes a second. Transfers of one client take turns."""

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._paid_at = 0.0
        """When all bytes so far are paid for, in the time of the event loop."""

    async def move(self, size: int) -> None:
        """Wait until `size` bytes more may have moved."""
        now = asyncio.get_running_loop().time()
        self._paid_at = min(max(self._paid_at, now - _BURST) + size / self._rate, now + _LONGEST)
        if self._paid_at > now:
            await asyncio.sleep(self._paid_at - now)


def _paced_send(send: Send, pace: Pace) -> Send:
    async def paced(event: Event) -> None:
        if size := len(event.get("body", b"")):
            await pace.move(size)
        await send(event)

    return paced


def _paced_receive(receive: Receive, pace: Pace) -> Receive:
    async def paced() -> Event:
        event = await receive()
        if size := len(event.get("body", b"")):
            await pace.move(size)
        return event

    return paced


def _key(scope: Event) -> str:
    """Who the client is; "" for one that is not limited, on a Unix socket."""
    if name := grant_of(scope).name:
        return f"token {name}"
    if name := certificate_name(scope):
        return f"certificate {name}"
    return _network(address_of(scope))


@lru_cache(_REMEMBERED)
def _network(address: str) -> str:
    """The address of a client as far as it cannot choose it: of IPv6, one has 2^64 addresses of its own."""
    if address and isinstance(parsed := ip_address(address), IPv6Address):
        return str(ip_network((parsed, 64), strict=False))
    return address
