"""Refusals of requests before an application has seen them, in the words of each protocol."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress

from tvix_store.asgi import DisconnectedError, Event, Receive, Send, drained, is_http1
from tvix_store.http.pages import refusal_form
from tvix_store.http.response import Response, length, send_whole
from tvix_store.protocol import connect
from tvix_store.rpc.status import RpcError, Status, status_fields
from tvix_store.traffic import Client

_REST = 64 << 20
"""Most bytes of a refused body that are taken."""
_REST_TIME = 5.0
"""Seconds in which they are taken over HTTP/1.1, behind the answer. A client that has read the answer has long stopped sending."""
_REST_TIME_HTTP2 = 60.0
"""Seconds in which they are taken over HTTP/2, before the answer. Nix hangs when a PUT is reset."""
_SEEN = 1.0
"""Seconds in which the engine sees that a connection is at its end."""


async def refuse(
    scope: Event, send: Send, status: int, code: Status, line: str, headers: Sequence[tuple[bytes, bytes]] = ()
) -> None:
    """Answer with a line for people: by an HTTP status and `headers`, or by a code over gRPC and Connect."""
    if _is_grpc(scope):
        fields = ((b"content-type", b"application/grpc"), *status_fields(RpcError(code, line)))
        response = Response(200, fields)
    elif f"{connect.PREFIX}/" in scope["path"]:  # before it may stand the name of a cache
        body = connect.encode_error(code, line)
        response = Response(
            status, ((b"content-type", b"application/json"), length(len(body)), (b"cache-control", b"no-store")), body
        )
    else:
        accept = next((value for name, value in scope["headers"] if name == b"accept"), None)
        response = refusal_form(scope["method"], scope.get("raw_path", b"/"), accept)(status, line, ())
    with suppress(DisconnectedError):
        await send_whole(response, send, head=scope["method"] == "HEAD", more=tuple(headers))


async def refuse_with_body(
    scope: Event,
    receive: Receive,
    send: Send,
    status: int,
    code: Status,
    line: str,
    headers: Sequence[tuple[bytes, bytes]] = (),
    *,
    hang_up: Callable[[Client], None],
) -> None:
    """As `refuse`, for a request that may have a body. The engine would wait for its rest without an end; `hang_up` stops that."""
    with suppress(DisconnectedError):
        if not is_http1(scope):
            if not _is_grpc(scope):
                await drained(receive, _REST, _REST_TIME_HTTP2)
            await refuse(scope, send, status, code, line, headers)
            return
        await refuse(scope, send, status, code, line, headers)
        names = {name for name, _ in scope["headers"]}
        if names & {b"content-length", b"transfer-encoding"} and not await drained(receive, _REST, _REST_TIME):
            hang_up(scope.get("client"))
            await drained(receive, _REST, _SEEN)


def _is_grpc(scope: Event) -> bool:
    return any(name == b"content-type" and value.startswith(b"application/grpc") for name, value in scope["headers"])
