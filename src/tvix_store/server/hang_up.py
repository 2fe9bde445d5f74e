"""Ends connections that the engine would keep.

The engine (h2corn 2.0) gives an application no way to end a connection. Over HTTP/1.1 it waits for ever for a client that does not
read, and it takes a refused body for as long as it comes. A descriptor is found by the address of one of its ends.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from ipaddress import ip_address

from tvix_store.traffic import Client

_quick = ctypes.PyDLL(None)
"""libc, called without giving up the interpreter: for calls that take a microsecond."""
_slow = ctypes.CDLL(None)
"""libc, called while others run."""
_NOWHERE = bytes(16)
"""An address of the family AF_UNSPEC. To connect there dissolves a connection, with a reset. Source: connect(2)."""
_LONGEST = 128
"""Bytes of the longest address of a socket. Source: sockaddr(3type), sockaddr_storage."""


class HangUp:
    """Resets the TCP connection with a client. The engine then sees it closed, and frees the memory of the connection.

    `shutdown` of the socket is not enough. Nobody reads the connection any more, so a client that goes on sending fills the
    buffers, and then waits for ever. The engine waits for the client, and a shutdown of the daemon waits for the engine.

    All connections of one round of the event loop are looked for together, in a thread. A look at 400 descriptors takes about a
    millisecond. A reset takes up to 3 ms, since the kernel frees what the client has not read. A hundred slow clients may lose
    their places at once: on the event loop, this took 260 ms.
    """

    def __init__(self) -> None:
        self._wanted: set[bytes] = set()

    def __call__(self, client: Client) -> None:
        if client is not None:
            if not self._wanted:
                asyncio.get_running_loop().call_soon(self._begin)
            self._wanted.add(_end(*client[:2]))

    def _begin(self) -> None:
        wanted, self._wanted = self._wanted, set()
        asyncio.get_running_loop().run_in_executor(None, _reset, lambda fd: _end_of(_quick.getpeername, fd) in wanted)


def hang_up_all(listeners: Sequence[socket.socket]) -> None:
    """Reset all TCP connections that came by `listeners`."""
    ports = {each.getsockname()[1].to_bytes(2) for each in listeners if each.family != socket.AF_UNIX}
    # A listener has no peer. It must not be reset: other processes listen on it too.
    _reset(lambda fd: _end_of(_quick.getsockname, fd)[2:4] in ports and bool(_end_of(_quick.getpeername, fd)))


def _reset(is_wanted: Callable[[int], bool]) -> None:
    for name in os.listdir("/proc/self/fd"):
        if is_wanted(int(name)):
            with suppress(OSError):
                own = os.dup(int(name))  # the engine may close its own meanwhile, and open another of this number
                try:
                    if is_wanted(own):
                        _slow.connect(own, _NOWHERE, len(_NOWHERE))
                finally:
                    os.close(own)


def _end_of(call: Callable[..., int], fd: int) -> bytes:
    """Family, port, and IP address of one end of a TCP socket, as `_end` makes them; nothing for other descriptors."""
    buffer = ctypes.create_string_buffer(_LONGEST)
    if call(fd, buffer, ctypes.byref(ctypes.c_uint(_LONGEST))):
        return b""
    # Source: ip(7), sockaddr_in; ipv6(7), sockaddr_in6.
    match int.from_bytes(buffer.raw[:2], "little"):
        case socket.AF_INET:
            return buffer.raw[:8]
        case socket.AF_INET6:
            return buffer.raw[:4] + buffer.raw[8:24]
        case _:
            return b""


def _end(host: str, port: int) -> bytes:
    address = ip_address(host)
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    return int(family).to_bytes(2, "little") + port.to_bytes(2) + address.packed
