"""Ends a connection that the engine would keep.

The engine (h2corn 2.0) gives an application no way to end a connection. Over HTTP/1.1 it waits for ever for a client that does not
read, and it takes a refused body for as long as it comes. The descriptor is found by the address of one of its ends.
"""

from __future__ import annotations

import ctypes
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress

from tvix_store.traffic import Client

_libc = ctypes.CDLL(None)
_NOWHERE = bytes(16)
"""An address of the family AF_UNSPEC. To connect there dissolves a connection, with a reset. Source: connect(2)."""


def hang_up(client: Client) -> None:
    """Reset the TCP connection with `client`. The engine then sees it closed, and frees the memory of the connection.

    `shutdown` of the socket is not enough. Nobody reads the connection any more, so a client that goes on sending fills the
    buffers, and then waits for ever. The engine waits for the client, and a shutdown of the daemon waits for the engine.
    """
    if client is not None:
        for connection in _connections(lambda each: each.getpeername()[:2] == client):
            _reset(connection)
            return


def hang_up_all(listeners: Sequence[socket.socket]) -> None:
    """Reset all TCP connections that came by `listeners`."""
    ports = {(each.family, each.getsockname()[1]) for each in listeners if each.family != socket.AF_UNIX}
    # A listener has no peer, and so is none of these.
    for connection in _connections(lambda each: bool(each.getpeername()) and (each.family, each.getsockname()[1]) in ports):
        _reset(connection)


def _connections(is_wanted: Callable[[socket.socket], bool]) -> Iterator[socket.socket]:
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError, ValueError):
            if not os.readlink(f"/proc/self/fd/{name}").startswith("socket:"):
                continue
            with socket.socket(fileno=os.dup(int(name))) as connection:
                if is_wanted(connection):
                    yield connection


def _reset(connection: socket.socket) -> None:
    _libc.connect(connection.fileno(), _NOWHERE, len(_NOWHERE))
