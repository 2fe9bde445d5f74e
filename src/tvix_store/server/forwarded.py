"""Forwarded: an ASGI layer that finds the address of a client, and its scheme, behind proxies that the operator trusts."""

from __future__ import annotations

from collections.abc import Coroutine, Iterable
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Any, TypeAlias

from tvix_store.asgi import App, Event, Receive, Send, unmapped, with_address
from tvix_store.errors import InvalidError

_SCHEMES = (b"http", b"https")
_UNIX = "unix"
"""Stands for all who reach us by a Unix socket."""
_MOST = 16
"""Addresses of a header field that are looked at, from its end. A request passes few proxies."""
_REMEMBERED = 4096
"""Addresses of which we remember whether they are proxies."""
_Network: TypeAlias = IPv4Network | IPv6Network


class Forwarded:
    """Takes the last address of `X-Forwarded-For` that is none of `proxies`, if the request itself comes from one of them.

    Each proxy adds the address from which it was reached. What stands before the last address that is not trusted may be anything.
    The scheme is that of `X-Forwarded-Proto`, where the proxy sends it.

    Raises:
        InvalidError: (when it is made) a proxy is neither an IP address, nor a network, nor `unix`.
    """

    def __init__(self, app: App, proxies: Iterable[str]) -> None:
        self._app = app
        self._networks = [check_proxy(proxy) for proxy in proxies]
        self._is_proxy = lru_cache(_REMEMBERED)(self._look_up)

    def __call__(self, scope: Event, receive: Receive, send: Send) -> Coroutine[Any, Any, None]:
        client = scope.get("client")
        if scope["type"] == "http" and self._is_proxy(client[0] if client else ""):
            forwarded = b",".join(value for name, value in scope["headers"] if name == b"x-forwarded-for")
            proto = next((value for name, value in scope["headers"] if name == b"x-forwarded-proto"), b"")
            if proto in _SCHEMES:
                scope = {**scope, "scheme": proto.decode()}
            for named in reversed(forwarded.decode("latin-1").split(",")[-_MOST:]):
                address = _address(named.strip())
                if address is None:
                    break
                scope = with_address(scope, address)
                if not self._is_proxy(address):
                    break
        return self._app(scope, receive, send)

    def _look_up(self, address: str) -> bool:
        if not address:
            return None in self._networks
        found = ip_address(unmapped(address))
        return any(network is not None and found in network for network in self._networks)


def check_proxy(text: str) -> _Network | None:
    """The network of trusted proxies that `text` names; None for Unix sockets.

    Raises:
        InvalidError: `text` is none.
    """
    if text == _UNIX:
        return None
    try:
        return ip_network(text)
    except ValueError:
        raise InvalidError(f"not a proxy: {text!r} (expected an IP address, a network as in 10.0.0.0/8, or unix)") from None


def _address(text: str) -> str | None:
    """An IP address in its usual form, without a port; None where `text` has none."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        return str(ip_address(text))
    except ValueError:
        return None
