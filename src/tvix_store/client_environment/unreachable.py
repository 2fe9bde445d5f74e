"""Why a server cannot be reached, in words for people."""

from __future__ import annotations

import errno
import os
import socket
import ssl


def words_of(error: OSError) -> str:
    """The words for an error of the system, or of TLS; asyncio's own words for it are others. May be empty."""
    if isinstance(error, ssl.SSLError | socket.gaierror) or not error.errno:
        return error.strerror or str(error)
    return os.strerror(error.errno)


def unreachable(error: OSError) -> str:
    """Why no connection was made, and what to do. May be empty."""
    words = words_of(error)
    if isinstance(error, socket.gaierror):
        return f"the name of the host is not known ({words}); check the address"
    if error.errno in (errno.ECONNREFUSED, errno.ENOENT):
        return f"nobody answers there ({words}); start tvix-store daemon, or check the address"
    return words
