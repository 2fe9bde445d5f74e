"""The types of ASGI, which `rpc` and `http` are applications of, and `server` hands to the engine.

Source: asgi.readthedocs.io, HTTP & WebSocket ASGI message format 2.5.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, MutableMapping
from typing import Any, TypeAlias

Event: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Event]]
Send: TypeAlias = Callable[[Event], Awaitable[None]]
App: TypeAlias = Callable[[Event, Receive, Send], Coroutine[Any, Any, None]]


class DisconnectedError(Exception):
    """The caller went away."""
