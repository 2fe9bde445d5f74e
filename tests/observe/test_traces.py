"""Traces over OTLP, taken by a server of the test."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from tests.http.daemon import Daemon
from tests.observe.test_daemon import Start, grpc_get, nar_url, narinfo_name, push
from tests.observe.test_daemon import start_daemon as start_daemon  # noqa: PLC0414 - a fixture
from tvix_store.observe import traces
from tvix_store.telemetry import spans

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"
OTHER_PARENT = "00f067aa0ba902b8"


class Collector:
    """Takes spans."""

    def __init__(self) -> None:
        self.exports: list[ExportTraceServiceRequest] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                collector.exports.append(ExportTraceServiceRequest.FromString(body))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    @property
    def spans(self) -> list[Span]:
        scopes = [scope for export in self.exports for resource in export.resource_spans for scope in resource.scope_spans]
        return [span for scope in scopes for span in scope.spans]

    def resource(self, name: str) -> set[str]:
        """Values of an attribute of the senders."""
        return {
            attribute.value.string_value
            for export in self.exports
            for of_resource in export.resource_spans
            for attribute in of_resource.resource.attributes
            if attribute.key == name
        }

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def collector() -> Iterator[Collector]:
    collector = Collector()
    yield collector
    collector.close()


@pytest.fixture
def start_traced(start_daemon: Start, monkeypatch: pytest.MonkeyPatch, collector: Collector) -> Callable[..., Daemon]:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
    return lambda name, *options: start_daemon(*options, name=name)


def attribute(span: Span, name: str) -> str:
    return next((each.value.string_value for each in span.attributes if each.key == name), "")


def test_a_trace_goes_through_two_daemons(start_traced: Callable[..., Daemon], collector: Collector) -> None:
    upstream = start_traced("upstream")
    path = push(upstream, "a")
    daemon = start_traced("daemon", "--workers", "1", "--substituters", f"{upstream.url}?require-signatures=false")
    answer = daemon.get(narinfo_name(path), traceparent=f"00-{TRACE}-{PARENT}-01", x_request_id="mine")
    assert answer.status == 200
    assert daemon.get(nar_url(daemon, path), traceparent=f"00-{TRACE}-{OTHER_PARENT}-01").status == 200
    assert daemon.get("/" + "0" * 32 + ".narinfo").status == 404
    grpc_get(daemon, path)
    daemon.stop()
    upstream.stop()
    assert collector.resource("service.name") == {"tvix-store"}
    ours = [span for span in collector.spans if span.trace_id.hex() == TRACE]
    [asked] = [span for span in ours if span.parent_span_id.hex() == PARENT]
    assert asked.kind == Span.SPAN_KIND_SERVER
    assert asked.name == "GET narinfo"
    assert attribute(asked, "tvix_store.request_id") == "mine"
    assert attribute(asked, "tvix_store.outcome") == "200"
    below = [span for span in ours if span.parent_span_id == asked.span_id]
    assert "upstream narinfo" in {span.name for span in below if span.kind == Span.SPAN_KIND_CLIENT}
    assert "GET narinfo" in {span.name for span in below if span.kind == Span.SPAN_KIND_SERVER}, "that of the upstream"
    [fetched] = [span for span in ours if span.parent_span_id.hex() == OTHER_PARENT]
    assert fetched.name == "GET nar"
    assert attribute(fetched, "tvix_store.substituted") == str(path)
    below = [span for span in ours if span.parent_span_id == fetched.span_id]
    assert any(span.name.startswith("tvix") for span in below), "its parts came over gRPC or Connect"
    others = [span for span in collector.spans if span.trace_id.hex() != TRACE]
    assert {"GET narinfo", "tvix.store.v1.PathInfoService/Get"} <= {span.name for span in others}
    assert not [span for span in collector.spans if span.status.code == Status.STATUS_CODE_ERROR]


def test_a_collector_that_is_away_holds_up_nothing(
    start_traced: Callable[..., Daemon], collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    daemon = start_traced("daemon")
    for number in range(20):
        assert daemon.get("/nix-cache-info").status == 200, number
    before = time.monotonic()
    daemon.stop()
    assert time.monotonic() - before < 15
    assert len([line for line in daemon.log.splitlines() if "ERROR" in line]) <= 6, daemon.log


def test_a_daemon_without_the_extra_says_so(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)
    assert not traces.are_wanted()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://localhost:4318/v1/traces")
    assert traces.are_wanted()
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    assert not traces.are_wanted()
    monkeypatch.delenv("OTEL_SDK_DISABLED")
    assert caplog.text == ""
    monkeypatch.setattr(traces, "find_spec", lambda _: None)
    assert not traces.are_wanted()
    assert "pip install tvix-store[otel]" in caplog.text


def test_without_the_variable_nothing_is_imported() -> None:
    program = (
        "import sys, tvix_store.cli.daemon, tvix_store.server, tvix_store.observe.traces as traces\n"
        "assert not traces.are_wanted()\n"
        "print([name for name in sys.modules if name.startswith('opentelemetry')])"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout == "[]\n"
    assert spans.outgoing() == ()
    spans.begin("a", "b").end("found")
