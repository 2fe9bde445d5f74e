"""RpcApp: a table of methods as one ASGI application, in all protocols."""

from __future__ import annotations

from collections.abc import Coroutine, Mapping, Sequence
from typing import Any

from tvix_store.asgi import App, Event, Receive, Send
from tvix_store.rpc.calls import Calls
from tvix_store.rpc.connect_app import ConnectApp
from tvix_store.rpc.grpc_app import GrpcApp
from tvix_store.rpc.method import Method
from tvix_store.traffic import Traffic

MAX_MESSAGE = 16 * 1024 * 1024
"""Default bound of one message in bytes, for all methods."""


class RpcApp:
    """Serves a table of methods by their full paths, `/package.Service/Method`: over gRPC, and with a prefix over Connect.

    Other requests go to `fallback`, another ASGI application. All other parameters are those of `Calls`.
    """

    def __init__(
        self,
        methods: Mapping[str, Method],
        fallback: App,
        *,
        max_message: int = MAX_MESSAGE,
        read_only: bool = False,
        traffic: Traffic | None = None,
        private_places: Sequence[str] = (),
    ) -> None:
        calls = Calls(
            methods, max_message=max_message, read_only=read_only, traffic=traffic or Traffic(), private_places=private_places
        )
        self.methods = calls.methods
        self._app = GrpcApp(calls, ConnectApp(calls, fallback))

    def __call__(self, scope: Event, receive: Receive, send: Send) -> Coroutine[Any, Any, None]:
        if scope["type"] == "websocket":
            return _refuse_websocket(send)
        return self._app(scope, receive, send)


async def _refuse_websocket(send: Send) -> None:
    await send({"type": "websocket.close"})  # before it was accepted


async def not_found(_scope: Event, _receive: Receive, send: Send) -> None:
    """A fallback that has nothing to offer."""
    await send({"type": "http.response.start", "status": 404, "headers": [(b"content-type", b"text/plain")]})
    await send(
        {"type": "http.response.body", "body": b"There is nothing here; this port speaks gRPC, and Connect below /rpc/v1.\n"}
    )
