"""Probes: an ASGI layer that answers `/metrics`, `/healthz` and `/readyz`, and passes all else on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any

from tvix_store.asgi import CHALLENGES, App, Event, Receive, Send, grant_of
from tvix_store.observe.metrics import Metrics
from tvix_store.observe.store_gauges import StoreGauges

_READING = ("GET", "HEAD")
_NO_STORE = (b"cache-control", b"no-store")
_TEXT = b"text/plain; charset=utf-8"


class Probes:
    """Answers three paths before `app`.

    `/healthz`: 200 while the worker runs. `/readyz`: 200 while `is_ready`, else 503. Both are open to all, and tell nothing else.
    `/metrics`: for those who may read the store; `whole_store_only`, for those who may use all of its named caches.
    """

    def __init__(
        self,
        app: App,
        metrics: Metrics,
        gauges: StoreGauges,
        is_ready: Callable[[], Awaitable[bool]],
        *,
        whole_store_only: bool = False,
    ) -> None:
        self._whole_store_only = whole_store_only
        self._app = app
        self._metrics = metrics
        self._gauges = gauges
        self._is_ready = is_ready
        self._one_page = asyncio.Semaphore(1)
        """A page takes some ms of the processor, so a worker makes one at a time."""
        self._answers: dict[str, Callable[[Event, Send], Coroutine[Any, Any, None]]] = {
            "/metrics": self._tell_metrics,
            "/healthz": self._tell_health,
            "/readyz": self._tell_readiness,
        }

    def __call__(self, scope: Event, receive: Receive, send: Send) -> Coroutine[Any, Any, None]:
        answer = self._answers.get(scope["path"]) if scope["type"] == "http" else None
        if answer is None:
            return self._app(scope, receive, send)
        if scope["method"] not in _READING:
            return _send(scope, send, 405, b"this is only read\n", ((b"allow", b"GET, HEAD"),))
        return answer(scope, send)

    async def _tell_metrics(self, scope: Event, send: Send) -> None:
        grant = grant_of(scope)
        if not grant.may_pull or (self._whole_store_only and (not grant.name or grant.cache is not None)):
            line = b"the metrics are for those who may read the store\n"
            await (_send(scope, send, 403, line) if grant.name else _send(scope, send, 401, line, CHALLENGES))
            return
        accepts = b",".join(value for name, value in scope["headers"] if name == b"accept").decode("latin-1")
        async with self._one_page:
            await self._gauges.refresh()
            page, content_type = await asyncio.to_thread(self._metrics.page, accepts)
        await _send(scope, send, 200, page, content_type=content_type.encode())

    async def _tell_health(self, scope: Event, send: Send) -> None:
        await _send(scope, send, 200, b"alive\n")

    async def _tell_readiness(self, scope: Event, send: Send) -> None:
        if await self._is_ready():
            await _send(scope, send, 200, b"ready\n")
        else:
            await _send(scope, send, 503, b"not ready\n", ((b"retry-after", b"5"),))


async def _send(
    scope: Event,
    send: Send,
    status: int,
    body: bytes,
    fields: tuple[tuple[bytes, bytes], ...] = (),
    *,
    content_type: bytes = _TEXT,
) -> None:
    headers = [(b"content-type", content_type), (b"content-length", b"%d" % len(body)), _NO_STORE, *fields]
    with suppress(OSError):  # nobody is there to read it
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})
