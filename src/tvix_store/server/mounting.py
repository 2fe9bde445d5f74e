"""asgi_app: a store as an application for any ASGI server, alone or under a prefix of another application."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any
from urllib.parse import quote

from tvix_store.asgi import App, Event, Receive, Send
from tvix_store.http.app import BinaryCache
from tvix_store.http.settings import CacheSettings
from tvix_store.rpc.asgi import MAX_MESSAGE
from tvix_store.rpc.services import serve_store
from tvix_store.services.store import Store
from tvix_store.traffic import Traffic


def asgi_app(store: Store, settings: CacheSettings | None = None, *, max_message: int = MAX_MESSAGE) -> App:
    """The binary cache of `store`, with gRPC where the server speaks HTTP/2 and sends trailers.

    The store must have been opened in the event loop of the server, and is not closed with it. Everyone who reaches the application
    may read, and push unless `settings` say `read_only`: tokens, limits and the guard against web pages belong to `serve`.
    `max_message` bounds one gRPC message in bytes.
    """
    settings = settings or CacheSettings()
    traffic = Traffic()
    cache = BinaryCache(store, settings, traffic)
    app, _ = serve_store(store, max_message=max_message, fallback=cache, traffic=traffic, private_places=settings.private_places)
    return _Mounted(app)


class _Mounted:
    """Leads requests to `app` by the path behind the prefix that the application is mounted under."""

    def __init__(self, app: App) -> None:
        self._app = app

    def __call__(self, scope: Event, receive: Receive, send: Send) -> Coroutine[Any, Any, None]:
        if scope["type"] == "lifespan":
            return _live(receive, send)
        if scope["type"] != "http":
            return self._app(scope, receive, send)
        path: str = scope["path"]
        raw: bytes = scope.get("raw_path") or quote(path).encode()
        prefix = scope.get("root_path", "").rstrip("/")
        if prefix and path.startswith(f"{prefix}/"):
            path = path[len(prefix) :]
            # As many slashes, since letters may be encoded.
            raw = b"/" + raw.split(b"/", prefix.count("/") + 1)[-1]
        inside = {"query_string": b"", **scope, "path": path, "raw_path": raw, "root_path": ""}
        return self._app(inside, receive, send)


async def _live(receive: Receive, send: Send) -> None:
    """Begin and end with the server: there is nothing to do. Source: asgi.readthedocs.io, Lifespan Protocol 2.0."""
    while (await receive())["type"] != "lifespan.shutdown":
        await send({"type": "lifespan.startup.complete"})
    await send({"type": "lifespan.shutdown.complete"})
