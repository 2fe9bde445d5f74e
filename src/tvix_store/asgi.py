"""The types of ASGI, which `rpc` and `http` are applications of, and `server` hands to the engine.

Source: asgi.readthedocs.io, HTTP & WebSocket ASGI message format 2.5.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, MutableMapping
from typing import Any, TypeAlias

from tvix_store.model.grant import OPEN, Grant
from tvix_store.telemetry import notes

Event: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Event]]
Send: TypeAlias = Callable[[Event], Awaitable[None]]
App: TypeAlias = Callable[[Event, Receive, Send], Coroutine[Any, Any, None]]


_GRANT = "tvix_store.grant"
"""The key of a scope under which the layer that looks at credentials puts what they grant."""


def grant_of(scope: Event) -> Grant:
    """What the client of a request may do; everything but administration where no layer looks at credentials."""
    grant: Grant = scope.get(_GRANT, OPEN)
    return grant


def set_grant(scope: Event, grant: Grant) -> None:
    """Tell everything behind a layer what the client of a request may do. The client's name is noted for the log."""
    noted = notes.current.get()
    if noted is not None:
        noted.client = grant.name
    scope[_GRANT] = grant


_ADDRESS = "tvix_store.address"
"""The key of a scope under which the layer that knows our proxies puts the address of their client."""


def address_of(scope: Event) -> str:
    """The IP address of the client of a request; "" over a Unix socket. A proxy that is not trusted is the client itself."""
    address: str | None = scope.get(_ADDRESS)
    if address is None:
        client = scope.get("client")
        return unmapped(client[0]) if client else ""
    return address


def unmapped(address: str) -> str:
    """An IP address; of IPv4 in its own form where a socket for both has it within one of IPv6."""
    return address.removeprefix("::ffff:") if "." in address else address


def with_address(scope: Event, address: str) -> Event:
    """The scope of a request whose client has this address, and reaches us by a proxy."""
    return {**scope, _ADDRESS: address}


def certificate_name(scope: Event) -> str:
    """The subject of the client's certificate, as in `CN=build-1` (RFC 4514); "" where it has shown none."""
    tls = scope.get("extensions", {}).get("tls")
    return (tls and tls["client_cert_name"]) or ""


def below(scope: Event, prefix: str) -> Event:
    """The scope of a request without the first part of its path, `prefix`, which is of ASCII and not encoded there."""
    skipped = len(prefix)
    root = scope.get("root_path", "") + prefix
    return {**scope, "path": scope["path"][skipped:], "raw_path": scope["raw_path"][skipped:], "root_path": root}


CHALLENGES = (
    (b"www-authenticate", b'Basic realm="tvix-store", charset="UTF-8"'),
    (b"www-authenticate", b'Bearer realm="tvix-store"'),
    (b"cache-control", b"no-store"),
)
"""Header fields of an answer with status 401. Source: RFC 9110."""


class DisconnectedError(Exception):
    """The caller went away."""


def is_http1(scope: Event) -> bool:
    """Whether a request came over HTTP/1.1."""
    return str(scope.get("http_version", "1.1")).startswith("1")


async def drained(receive: Receive, most: int, seconds: float) -> bool:
    """Take up to `most` bytes of a body that nobody wants, in up to `seconds`; whether it is at its end then.

    Raises:
        DisconnectedError: the client went away.
    """
    try:
        async with asyncio.timeout(seconds):
            while most > 0:
                event = await receive()
                if event["type"] == "http.disconnect":
                    raise DisconnectedError
                if not event.get("more_body"):
                    return True
                most -= len(event.get("body", b""))
    except TimeoutError:
        pass
    return False
