"""The route of a request: which kind of question it is. A label of metrics, so there are few of them, whatever clients ask for."""

from __future__ import annotations

from collections.abc import Container
from functools import cache
from typing import NamedTuple

from tvix_store.asgi import Event
from tvix_store.protocol.connect import PREFIX

OTHER = "other"
_CONNECT = f"{PREFIX}/"
_METHODS = frozenset({"GET", "HEAD", "PUT", "POST", "DELETE", "OPTIONS"})
_BY_PART = {
    "nar": "nar",
    "log": "log",
    "realisations": "realisation",
    "build-trace-v2": "realisation",
    "debuginfo": "debuginfo",
    "serve": "browse",
    "nix-cache-info": "cache-info",
    "metrics": "metrics",
    "healthz": "health",
    "readyz": "health",
}
"""Routes by the first part of a path that says something. Before it may stand the name of a cache."""


class Route(NamedTuple):
    """protocol: `grpc`, `connect` or `http`. name: Of the method, or of the kind of question. method: Of HTTP."""

    protocol: str
    name: str
    method: str


_NARINFO = {method: Route("http", "narinfo", method) for method in (*_METHODS, OTHER)}


def route_of(scope: Event, calls: Container[str]) -> Route:
    """The route of a request. `calls` are the paths of all gRPC methods, `/package.Service/Method`."""
    path: str = scope["path"]
    method: str = scope["method"]
    if path.endswith(".narinfo"):  # first, since most requests of a cache are for these
        return _NARINFO.get(method) or _NARINFO[OTHER]
    if path in calls:
        return _of_call("grpc", path, method if method == "POST" else _known(method))
    before, found, call = path.partition(_CONNECT)
    if found and "/" not in before[1:]:  # before it may stand the name of a cache
        return _of_call("connect", f"/{call}" if f"/{call}" in calls else f"/{OTHER}", _known(method))
    if method == "POST" and any(
        name == b"content-type" and value.startswith(b"application/grpc") for name, value in scope["headers"]
    ):
        return Route("grpc", OTHER, method)
    return Route("http", _http_name(path), _known(method))


@cache
def _of_call(protocol: str, path: str, method: str) -> Route:
    """The route of a call whose method is known: there are few of them."""
    return Route(protocol, path[1:], method)


def _http_name(path: str) -> str:
    if path.endswith(".ls"):
        return "listing"
    _, *parts = path.split("/", 3)
    for part in parts[:2]:
        if part in _BY_PART:
            return _BY_PART[part]
    return OTHER


def _known(method: str) -> str:
    return method if method in _METHODS else OTHER
