"""Traces over OTLP, by the SDK of OpenTelemetry: an extra, which is imported where the environment asks for traces.

The SDK reads all of its settings from the environment itself. Source: opentelemetry.io, OTLP Exporter Configuration.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING

from tvix_store import __version__
from tvix_store.asgi import App, Event, Receive, Send
from tvix_store.observe.requests import Exchange
from tvix_store.telemetry import notes, spans

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_FLUSH = 3.0
"""Seconds that the last spans of a worker get to be sent."""
_TRACED = frozenset({b"traceparent", b"tracestate"})
_FAILED = ("5", "aborted", "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNKNOWN", "failed", "refused")
"""Beginnings of outcomes that are errors in a trace."""
_log = logging.getLogger(__name__)


def are_wanted() -> bool:
    """Whether the environment asks for traces, and they can be had. If they can't, an error in the log says so."""
    wanted = any(os.environ.get(name) for name in _ENDPOINTS)
    if not wanted or os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or os.environ.get("OTEL_TRACES_EXPORTER") == "none":
        return False
    if find_spec("opentelemetry") is None or find_spec("opentelemetry.exporter.otlp.proto.http") is None:
        _log.error("no traces are sent: OTEL_EXPORTER_OTLP_ENDPOINT asks for them, which needs `pip install tvix-store[otel]`")
        return False
    return True


class TracedRequests:
    """Makes a span of each request to `app`, within the trace that the client names. It stands behind ObservedRequests.

    To be made in the process that serves: it starts a thread, which sends the spans.
    """

    def __init__(self, app: App) -> None:
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._app = app
        self._provider = _provider()
        self._tracer = self._provider.get_tracer("tvix_store", __version__)
        self._propagator = TraceContextTextMapPropagator()
        spans.use(self)

    async def __call__(self, scope: Event, receive: Receive, send: Send) -> None:
        exchange = notes.current.get()
        if not isinstance(exchange, Exchange):
            await self._app(scope, receive, send)
            return
        from opentelemetry.trace import SpanKind, use_span

        fields = {name.decode(): value.decode("latin-1") for name, value in scope["headers"] if name in _TRACED}
        route = exchange.route
        span = self._tracer.start_span(
            route.name if route.protocol != "http" else f"{route.method} {route.name}",
            self._propagator.extract(fields),
            SpanKind.SERVER,
            {"http.request.method": route.method, "http.route": route.name, "network.protocol.name": route.protocol},
        )
        try:
            with use_span(span, end_on_exit=False, record_exception=False, set_status_on_exception=False):
                await self._app(scope, receive, send)
        finally:
            span.set_attribute("tvix_store.request_id", exchange.id)
            for what, (first, _) in (exchange.done or {}).items():
                span.set_attribute(f"tvix_store.{what}", first)
            _end(span, exchange.outcome or "aborted")

    def begin(self, name: str, peer: str) -> spans.Span:
        """As `Tracer.begin`."""
        from opentelemetry.trace import SpanKind

        return _Part(self._tracer.start_span(name, None, SpanKind.CLIENT, {"server.address": peer}))

    def outgoing(self) -> Sequence[tuple[str, str]]:
        """As `Tracer.outgoing`."""
        fields: dict[str, str] = {}
        self._propagator.inject(fields)
        return tuple(fields.items())

    def close(self) -> None:
        """Send the last spans, for some seconds at most."""
        spans.use(None)
        # A thread that ends with the process: the SDK waits for a server that does not answer.
        closing = threading.Thread(target=self._provider.shutdown, daemon=True)
        closing.start()
        closing.join(_FLUSH)


class _Part:
    def __init__(self, span: Span) -> None:
        self._span = span

    def end(self, outcome: str) -> None:
        _end(self._span, outcome)


def _end(span: Span, outcome: str) -> None:
    from opentelemetry.trace import StatusCode

    span.set_attribute("tvix_store.outcome", outcome)
    if outcome.startswith(_FAILED):
        span.set_status(StatusCode.ERROR, outcome)
    span.end()


def _provider() -> TracerProvider:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    named = Resource.create({"service.version": __version__, "process.pid": os.getpid()})
    if not named.attributes.get("service.name") or str(named.attributes["service.name"]).startswith("unknown_service"):
        named = named.merge(Resource({"service.name": "tvix-store"}))
    provider = TracerProvider(resource=named)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider
