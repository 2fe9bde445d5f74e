"""NamedCaches: the ASGI layer that leads a request to the cache that it is for.

A request names its cache by the first part of its path, as in `/team-a/nix-cache-info`, or by a token that is for one cache. A
gRPC call has the path of its method, so the token alone names its cache.
"""

from __future__ import annotations

from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, replace
from typing import Any

from tvix_store.asgi import App, Event, Receive, Send, below, grant_of, set_grant
from tvix_store.http.response import see_slash, send_whole
from tvix_store.model.grant import Grant, Scope

_GETTING = ("GET", "HEAD")


@dataclass(frozen=True, slots=True)
class ServedCache:
    """The application of a named cache. `private`: strangers may not even read."""

    app: App
    private: bool = False


class NamedCaches:
    """Leads requests to `caches` by name, and all others to `root`, the store as a whole.

    The whole store has the content of all caches, so it is for clients alone whose grant is for all of them. Requests of strangers
    that name no cache are for the cache `default`, if there is one.
    """

    def __init__(self, root: App, caches: Mapping[str, ServedCache], default: str | None = None) -> None:
        self._root = root
        self._caches = caches
        self._default = default

    def __call__(self, scope: Event, receive: Receive, send: Send) -> Coroutine[Any, Any, None]:
        if scope["type"] != "http":
            return self._root(scope, receive, send)
        grant = grant_of(scope)
        raw: bytes = scope["raw_path"]
        first, slash, _ = raw[1:].partition(b"/")
        name = first.decode("latin-1")
        cache = self._caches.get(name)
        if cache is not None and (not cache.private or _is_for(grant, name)) and (slash or scope["method"] in _GETTING):
            if not slash:
                return send_whole(see_slash(first), send, head=scope["method"] == "HEAD")
            return self._serve(cache, name, grant, below(scope, f"/{name}"), receive, send)
        # A private cache is, to strangers, as if it did not exist.
        named = grant.cache or (None if grant.name else self._default)
        if named is not None:
            return self._serve(self._caches[named], named, grant, scope, receive, send)
        if not grant.name:
            set_grant(scope, Grant(Scope.NOTHING, refusal=grant.refusal))
        return self._root(scope, receive, send)

    def _serve(
        self, cache: ServedCache, name: str, grant: Grant, scope: Event, receive: Receive, send: Send
    ) -> Coroutine[Any, Any, None]:
        if not grant.refusal and not _is_for(grant, name):
            # A token of another cache is as good as none.
            grant = replace(grant, scope=Scope.NOTHING if cache.private else Scope.PULL)
        set_grant(scope, grant)
        return cache.app(scope, receive, send)


def _is_for(grant: Grant, name: str) -> bool:
    """Whether a client has shown that it may use a cache."""
    return bool(grant.name) and not grant.refusal and grant.cache in (None, name)
