"""`/metrics`, `/healthz` and `/readyz`."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_text

from tests.observe.test_requests import ask, field
from tvix_store.asgi import Event, Receive, Send, set_grant
from tvix_store.errors import UnavailableError
from tvix_store.model.grant import Grant, Scope
from tvix_store.observe.metrics import Metrics
from tvix_store.observe.probes import Probes
from tvix_store.observe.store_gauges import StoreGauges
from tvix_store.services.statistics import Stats
from tvix_store.telemetry import meters
from tvix_store.telemetry.shared import Row, SharedRows


class Counted:
    """Statistics that take a while, or fail."""

    def __init__(self) -> None:
        self.times = 0
        self.paths = 3
        self.delay = 0.0
        self.error: UnavailableError | None = None

    async def stats(self) -> Stats:
        self.times += 1
        await asyncio.sleep(self.delay)
        if self.error is not None:
            raise self.error
        return Stats(self.paths, 4, 1, 10, 3000, 2000, 1000, 4096)


@pytest.fixture
def shared() -> Iterator[SharedRows]:
    shared = SharedRows(2)
    meters.count_in(shared.row(0))
    yield shared
    meters.count_in(Row.private())


class Ready:
    is_ready = True

    async def __call__(self) -> bool:
        return self.is_ready


async def behind(_scope: Event, _receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 418, "headers": []})
    await send({"type": "http.response.body"})


def probes(shared: SharedRows, statistics: Counted | None = None, ready: Ready | None = None) -> Probes:
    metrics = Metrics(shared)
    return Probes(behind, metrics, StoreGauges(statistics, (), metrics), ready or Ready())


def values(page: bytes) -> dict[str, float]:
    return {sample.name: sample.value for family in read_text(page.decode()) for sample in family.samples}


async def test_health_and_readiness(shared: SharedRows) -> None:
    ready = Ready()
    app = probes(shared, ready=ready)
    for path, body in (("/healthz", b"alive\n"), ("/readyz", b"ready\n")):
        start, end = await ask(app, path)
        assert (start["status"], end["body"]) == (200, body)
        assert (await ask(app, path, "HEAD"))[1]["body"] == b""
    ready.is_ready = False
    assert (await ask(app, "/healthz"))[0]["status"] == 200
    assert (await ask(app, "/readyz"))[0]["status"] == 503
    assert (await ask(app, "/readyz", "PUT"))[0]["status"] == 405
    assert (await ask(app, "/readyz/"))[0]["status"] == 418


async def test_metrics_are_for_who_may_read(shared: SharedRows) -> None:
    app = probes(shared)

    async def refused(scope: Event, receive: Receive, send: Send) -> None:
        set_grant(scope, Grant(Scope.NOTHING))
        await app(scope, receive, send)

    assert [(await ask(refused, path))[0]["status"] for path in ("/metrics", "/healthz", "/readyz")] == [401, 200, 200]
    assert b"tvix_store" not in (await ask(refused, "/metrics"))[1]["body"]
    assert (await ask(app, "/metrics"))[0]["status"] == 200


async def test_the_page_is_read_by_prometheus_in_both_forms(shared: SharedRows) -> None:
    meters.REQUESTS.of("http", "narinfo", "GET", "200").add(3)
    meters.REQUEST_SECONDS.of("http", "narinfo").observe(0.3)
    meters.REQUEST_SECONDS.of("http", "narinfo").observe(1e6)
    # A label may hold anything that an operator gives as a URL.
    meters.UPSTREAM_REQUESTS.of('https://a"b\\c\nd', "nar", "found").add()
    row = shared.row(1)
    row.values[row.position("tvix_store_requests_total\0http\0narinfo\0GET\000200")] += 4
    row.values[row.position("unknown_meter\0x")] += 4
    plain = await ask(probes(shared), "/metrics")
    openmetrics = await ask(probes(shared), "/metrics", accept="application/openmetrics-text;version=1.0.0")
    assert (field(plain, b"content-type") or b"").startswith(b"text/plain")
    assert (field(openmetrics, b"content-type") or b"").startswith(b"application/openmetrics-text")
    for read, events in ((read_text, plain), (read_openmetrics, openmetrics)):
        samples = [sample for family in read(events[1]["body"].decode()) for sample in family.samples]
        found = {(sample.name, *sorted(sample.labels.values())): sample.value for sample in samples}
        assert found["tvix_store_requests_total", "200", "GET", "http", "narinfo"] == 7
        assert found["tvix_store_request_duration_seconds_bucket", "0.5", "http", "narinfo"] == 1
        assert found["tvix_store_request_duration_seconds_bucket", "+Inf", "http", "narinfo"] == 2
        assert found["tvix_store_request_duration_seconds_count", "http", "narinfo"] == 2
        assert found["tvix_store_request_duration_seconds_sum", "http", "narinfo"] == 1e6 + 0.3
        assert found["tvix_store_upstream_requests_total", "found", 'https://a"b\\c\nd', "nar"] == 1
        assert not any("unknown_meter" in sample.name for sample in samples)


async def test_the_store_is_counted_once_for_all_workers(shared: SharedRows) -> None:
    statistics = Counted()
    app = probes(shared, statistics)
    pages = [values((await ask(app, "/metrics"))[1]["body"]) for _ in range(3)]
    assert statistics.times == 1
    for page in pages:
        assert page["tvix_store_store_paths"] == 3
        assert page["tvix_store_store_dedup_ratio"] == 1.5
        assert page["tvix_store_store_compression_ratio"] == 2
    # Another worker sees that it need not count. Later it does, and its figures are the newer ones.
    meters.count_in(shared.row(1))
    other = Counted()
    other.paths = 5
    assert values((await ask(probes(shared, other), "/metrics"))[1]["body"])["tvix_store_store_paths"] == 3
    assert other.times == 0
    old = shared.row(0)
    old.values[old.position(meters.STORE_COUNTED.name)] -= 100
    assert values((await ask(probes(shared, other), "/metrics"))[1]["body"])["tvix_store_store_paths"] == 5


async def test_a_scrape_waits_for_no_slow_count(shared: SharedRows, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tvix_store.observe.store_gauges._PATIENCE", 0.05)
    statistics = Counted()
    statistics.delay = 100
    metrics = Metrics(shared)
    gauges = StoreGauges(statistics, (), metrics)
    app = Probes(behind, metrics, gauges, Ready())
    assert "tvix_store_store_paths" not in values((await ask(app, "/metrics"))[1]["body"])
    await ask(app, "/metrics")
    assert statistics.times == 1
    await gauges.aclose()


async def test_a_count_that_fails_is_a_line_in_the_log(shared: SharedRows, caplog: pytest.LogCaptureFixture) -> None:
    statistics = Counted()
    statistics.error = UnavailableError("the disk is away")
    start, end = await ask(probes(shared, statistics), "/metrics")
    assert start["status"] == 200
    assert "tvix_store_store_paths" not in values(end["body"])
    assert "the disk is away" in caplog.text
