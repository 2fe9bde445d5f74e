"""GrpcApp: calls over gRPC, as an ASGI application."""

from __future__ import annotations

from collections.abc import Coroutine, Mapping
from typing import Any

from tvix_store.asgi import App, DisconnectedError, Event, Receive, Send, grant_of
from tvix_store.rpc.arrival import Arrival
from tvix_store.rpc.calls import Calls
from tvix_store.rpc.deadline import seconds
from tvix_store.rpc.framing import Enveloped
from tvix_store.rpc.grpc_response import GrpcResponse
from tvix_store.rpc.method import Call, Method

_CONTENT_TYPES = (b"application/grpc", b"application/grpc+proto")
_PLAIN = Enveloped()


class GrpcApp:
    """Serves `calls` by the paths of their methods. Requests that are not gRPC go to `fallback`, another ASGI application."""

    def __init__(self, calls: Calls, fallback: App) -> None:
        self._calls = calls
        self._methods = calls.methods
        self._fallback = fallback

    def __call__(self, scope: Event, receive: Receive, send: Send) -> Coroutine[Any, Any, None]:
        if scope["method"] == "GET" and scope["path"] not in self._methods:
            return self._fallback(scope, receive, send)  # most requests of a cache, and gRPC is POST alone
        headers: dict[bytes, bytes] = dict(scope["headers"])
        content_type = headers.get(b"content-type", b"")
        method = self._methods.get(scope["path"])
        if not _is_grpc(content_type):
            if method is None and not content_type.startswith(b"application/grpc"):
                return self._fallback(scope, receive, send)
            return _unsupported_media_type(send)
        if scope["method"] != "POST":
            return _unsupported_media_type(send)
        return self._call(
            method, Call(scope["path"], scope["headers"], scope.get("client"), grant_of(scope)), headers, receive, send
        )

    async def _call(self, method: Method | None, call: Call, headers: Mapping[bytes, bytes], receive: Receive, send: Send) -> None:
        encoding = headers.get(b"grpc-encoding", b"identity")
        framing = _PLAIN if encoding == b"identity" else Enveloped(encoding)
        response = GrpcResponse(call, send, compressed=encoding == b"gzip")
        try:
            await self._calls.answer(method, call, Arrival(receive, framing, headers.get(b"grpc-timeout"), seconds), response)
        except DisconnectedError:
            return


def _is_grpc(content_type: bytes) -> bool:
    if content_type in _CONTENT_TYPES or not content_type:
        return bool(content_type)
    return content_type.partition(b";")[0].rstrip().lower() in _CONTENT_TYPES


async def _unsupported_media_type(send: Send) -> None:
    headers = [(b"content-type", b"text/plain"), (b"accept-post", b"application/grpc")]
    await send({"type": "http.response.start", "status": 415, "headers": headers})
    await send({"type": "http.response.body", "body": b"This path takes gRPC: POST with content-type application/grpc.\n"})
