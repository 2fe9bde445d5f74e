"""Requests to an application in this process, without an engine and sockets."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from tvix_store.asgi import App, Event

NO_FIELDS: Mapping[bytes, bytes] = MappingProxyType({})


async def answer(
    app: App, path: str, method: str = "GET", body: bytes = b"", fields: Mapping[bytes, bytes] = NO_FIELDS, **more: Any
) -> tuple[int, dict[bytes, bytes], bytes]:
    """The status, header fields and body of what is answered. `more` goes into the scope of the request."""
    raw, _, query = path.partition("?")
    sent: list[Event] = []
    scope = {"type": "http", "method": method, "path": raw, "raw_path": raw.encode(), "query_string": query.encode(), **more}

    async def receive() -> Event:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(event: Event) -> None:
        sent.append(event)

    headers = list({b"host": b"x", **fields}.items())
    await app({**scope, "headers": headers, "http_version": "1.1"}, receive, send)
    return sent[0]["status"], dict(sent[0]["headers"]), b"".join(event.get("body", b"") for event in sent[1:])
