"""Ports for servers that cannot say which free one they took."""

from __future__ import annotations

import socket


def free_port() -> int:
    """A TCP port of this machine on which nobody listens now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
