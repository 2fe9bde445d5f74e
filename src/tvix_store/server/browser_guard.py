"""BrowserGuard: an ASGI layer before all others, against web pages that use the daemon through somebody's browser.

A page's server may let its own name lead to 127.0.0.1 (DNS rebinding). The browser then takes a daemon on this machine for a part
of the page. The page's name in `Host` gives it away; an IP address there cannot have been rebound. With every request that may
write, a browser names the page in `Origin`. Other clients send no `Origin`.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Coroutine, Iterable
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

from tvix_store.asgi import App, Event, Receive, Send
from tvix_store.errors import InvalidError
from tvix_store.rpc.status import Status
from tvix_store.server.refusal import refuse

_READING = ("GET", "HEAD", "OPTIONS")
_LOCAL = "localhost"
_MOST_REMEMBERED = 1000
"""Values of `Host` that are remembered as good."""
_HOST = re.compile(r"(?!-)[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*")
_ORIGIN = re.compile(rf"https?://({_HOST.pattern}|\[[0-9a-f:.]+\])(:[0-9]{{1,5}})?")


class BrowserGuard:
    """Refuses requests with 421 or 403 and one line, over gRPC and Connect with PERMISSION_DENIED. Passes all others to `app`.

    A request that may write, and has an `Origin` that is not among `origins`, is refused anywhere. Those of `sockets` that
    listen on a loopback address refuse every `Host` but IP addresses, `localhost`, and `hosts`.
    """

    def __init__(self, app: App, sockets: Iterable[socket.socket], hosts: Iterable[str], origins: Iterable[str]) -> None:
        self._app = app
        self._loopback = {each.getsockname()[:2] for each in sockets if _is_loopback(each)}
        self._hosts = {_LOCAL, *(host.lower() for host in hosts)}
        self._origins = {origin.lower().encode() for origin in origins}
        self._good = {b""}
        """Values of `Host` that were looked at. Browsers always send one."""

    def __call__(self, scope: Event, receive: Receive, send: Send) -> Coroutine[Any, Any, None]:
        if scope["type"] == "http":
            if scope["server"] in self._loopback:
                host = b""
                for name, value in scope["headers"]:  # `_field`, written out: this is done for each request
                    if name == b"host":
                        host = value
                        break
                if host not in self._good and not self._is_good(host):
                    line = f"this daemon has no name {_name(host)!a}; if it is to have that, start it with --allow-host NAME"
                    return refuse(scope, send, 421, Status.PERMISSION_DENIED, line)
            reads = scope["method"] in _READING
            if not reads or (self._origins and scope["method"] == "OPTIONS"):
                origin = _field(scope, b"origin")
                if origin is not None and origin.lower() in self._origins:
                    return _let_write(origin, send) if reads else self._app(scope, receive, _telling(origin, send))
                if origin is not None and not reads:
                    page = origin.decode("latin-1")
                    line = f"web pages of {page!a} may not write here; if they are to, start the daemon with --allow-origin ORIGIN"
                    return refuse(scope, send, 403, Status.PERMISSION_DENIED, line)
        return self._app(scope, receive, send)

    def _is_good(self, host: bytes) -> bool:
        name = _name(host)
        is_good = name in self._hosts or name.endswith("." + _LOCAL) or _ip_address(name) is not None
        if is_good and len(self._good) < _MOST_REMEMBERED:
            self._good.add(host)
        return is_good


def _field(scope: Event, wanted: bytes) -> bytes | None:
    """The first value of a header field."""
    for name, value in scope["headers"]:
        if name == wanted:
            return bytes(value)
    return None


def check_host(host: str) -> None:
    """Raise InvalidError where `host` is not a host name alone."""
    if not _HOST.fullmatch(host.lower()):
        raise InvalidError(f"not a host name: {host!r} (expected a name without scheme and port, as in cache.example.org)")


def check_origin(origin: str) -> None:
    """Raise InvalidError where `origin` is not that of a web page."""
    if not _ORIGIN.fullmatch(origin.lower()):
        raise InvalidError(f"not an origin: {origin!r} (expected scheme, host and port alone, as in https://example.org)")


async def _let_write(origin: bytes, send: Send) -> None:
    """Answer what a browser asks before a page writes. Source: fetch.spec.whatwg.org, CORS-preflight fetch."""
    headers = [
        (b"access-control-allow-origin", origin),
        (b"access-control-allow-methods", b"GET, HEAD, PUT, POST, DELETE"),
        (b"access-control-allow-headers", b"*, authorization"),  # which `*` leaves out
        (b"access-control-max-age", b"600"),
        (b"vary", b"origin"),
    ]
    with suppress(OSError):
        await send({"type": "http.response.start", "status": 204, "headers": headers})
        await send({"type": "http.response.body", "body": b""})


def _telling(origin: bytes, send: Send) -> Send:
    """`send`, with header fields that let the page of `origin` see the answer."""

    async def telling(event: Event) -> None:
        if event["type"] == "http.response.start":
            more = [(b"access-control-allow-origin", origin), (b"access-control-expose-headers", b"*"), (b"vary", b"origin")]
            event = {**event, "headers": [*event["headers"], *more]}
        await send(event)

    return telling


def _name(host: bytes) -> str:
    """The name, or the IP address, in a value of `Host`."""
    text = host.decode("latin-1").lower()
    return text[1:].partition("]")[0] if text.startswith("[") else text.partition(":")[0].removesuffix(".")


def _ip_address(name: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(name)
    except ValueError:
        return None


def _is_loopback(listener: socket.socket) -> bool:
    return listener.family != socket.AF_UNIX and ip_address(listener.getsockname()[0]).is_loopback
