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


def with_grant(scope: Event, grant: Grant) -> Event:
    """The scope of a request whose client has this grant. The client's name is noted for the log."""
    noted = notes.current.get()
    if noted is not None:
        noted.client = grant.name
    return {**scope, _GRANT: grant}


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
