"""PushRoute: the ASGI layer that leads requests below `/push` to the store without its upstreams, for clients that fill it."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from tvix_store.asgi import App, Event, Receive, Send, below

_PREFIX = "/push/"


class PushRoute:
    """Leads requests below `/push/` to `alone`, a store without its upstreams; all others to `app`, the same store with them."""

    def __init__(self, app: App, alone: App) -> None:
        self._app = app
        self._alone = alone

    def __call__(self, scope: Event, receive: Receive, send: Send) -> Coroutine[Any, Any, None]:
        # The raw path too: behind an encoded letter, the two would be cut at different places.
        if scope["type"] != "http" or not scope["path"].startswith(_PREFIX) or not scope["raw_path"].startswith(b"/push/"):
            return self._app(scope, receive, send)
        return self._alone(below(scope, _PREFIX.removesuffix("/")), receive, send)
