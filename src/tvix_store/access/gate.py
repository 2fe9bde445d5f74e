"""Gate: the ASGI layer that turns a request's credentials into a grant, which everything behind it receives."""

from __future__ import annotations

from collections.abc import Collection, Coroutine
from typing import Any

from tvix_store.access.authority import Authority
from tvix_store.asgi import App, Event, Receive, Send, set_grant
from tvix_store.model.grant import Grant, Scope

_TWICE = Grant(Scope.NOTHING, refusal="the request shows credentials twice")


class Gate:
    """Passes all requests to `app`, each with its grant. It refuses none: the answer to a refusal depends on the protocol.

    `caches` are the names of the caches that are served. A grant for another one grants nothing.
    """

    def __init__(self, app: App, authority: Authority, caches: Collection[str] = ()) -> None:
        self._app = app
        self._authority = authority
        self._caches = frozenset(caches)

    def __call__(self, scope: Event, receive: Receive, send: Send) -> Coroutine[Any, Any, None]:
        shown = [value for name, value in scope.get("headers", ()) if name == b"authorization"]
        if not shown:
            set_grant(scope, self._authority.of_stranger())
            return self._app(scope, receive, send)
        grant = self._authority.grant(shown[0]) if len(shown) == 1 else _TWICE
        if isinstance(grant, Grant):
            set_grant(scope, self._served(grant))
            return self._app(scope, receive, send)
        return self._later(grant, scope, receive, send)

    async def _later(self, asking: Coroutine[Any, Any, Grant], scope: Event, receive: Receive, send: Send) -> None:
        set_grant(scope, self._served(await asking))
        await self._app(scope, receive, send)

    def _served(self, grant: Grant) -> Grant:
        if grant.cache is None or grant.cache in self._caches:
            return grant
        return Grant(Scope.NOTHING, grant.name, refusal=f"the token is for the cache {grant.cache}, which is not served here")
