"""Addresses that an upstream must not send us to: those of this machine and of its link.

Source: IANA's registries of special-purpose addresses. Private networks are not among them: caches keep their NARs there.
"""

from __future__ import annotations

import ipaddress
import socket
from typing import TypeAlias

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

_THIS_NETWORK = ipaddress.ip_network("0.0.0.0/8")
"""Linux connects 0.0.0.0 to this machine."""
_COMPATIBLE = ipaddress.ip_network("::/96")
_TRANSLATED = ipaddress.ip_network("64:ff9b::/96")
REFUSAL = "which is refused"
"""Words of the error."""


def is_forbidden(address: Address) -> bool:
    """Whether it is loopback, link-local, unspecified or multicast, also as an IPv4 address inside an IPv6 one."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if inner is None and (address in _COMPATIBLE or address in _TRANSLATED):
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None and is_forbidden(inner):
            return True
    elif address in _THIS_NETWORK:
        return True
    return address.is_loopback or address.is_link_local or address.is_unspecified or address.is_multicast


def is_forbidden_host(host: str) -> bool:
    """Whether `host`, before anything is resolved, is or means such an address."""
    name = host.rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return is_forbidden(ipaddress.ip_address(host))
    except ValueError:
        pass
    try:
        return is_forbidden(ipaddress.ip_address(socket.inet_aton(host)))  # forms like 127.1 and 0x7f000001
    except OSError:
        return False


def guarded_socket(info: tuple[int, int, int, str, tuple[object, ...]]) -> socket.socket:
    """A socket for connecting to exactly the address in `info`, which is as `getaddrinfo` gives it.

    Raises:
        PermissionError: it is a forbidden one; the text holds REFUSAL.
    """
    family, kind, protocol, _, where = info
    address = ipaddress.ip_address(str(where[0]))
    if is_forbidden(address):
        raise PermissionError(f"it leads to {address}, {REFUSAL}")
    return socket.socket(family, kind, protocol)
