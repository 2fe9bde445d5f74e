"""Metrics: the counts of all workers, as text that Prometheus reads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from math import inf

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from tvix_store import __version__
from tvix_store.telemetry.meters import METERS, SEPARATOR, STORE_COUNTED, Counter, Gauge, Histogram
from tvix_store.telemetry.shared import SharedRows

Rows = Sequence[dict[str, float]]


class Metrics:
    """The counts in `shared`, which all workers have."""

    def __init__(self, shared: SharedRows) -> None:
        self._shared = shared

    def page(self, accepts: str) -> tuple[bytes, str]:
        """The text for a client that `accepts` these content types, and its content type. It takes some ms: call it in a thread."""
        encode, content_type = choose_encoder(accepts)
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Families(self._shared.read()))
        return encode(registry), content_type

    def counted_at(self) -> float:
        """When a worker has counted the store last, in seconds of the epoch; 0 where none has."""
        return max(row.get(STORE_COUNTED.name, 0.0) for row in self._shared.read())


class _Families(Collector):
    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    def collect(self) -> Iterable[Metric]:
        return families(self._rows)


def families(rows: Rows) -> Iterator[Metric]:
    """What is known of each meter that has a count in one of `rows`."""
    info = GaugeMetricFamily("tvix_store_info", "The version of the program.", labels=["version"])
    info.add_metric([__version__], 1)
    yield info
    newest = max(rows, key=lambda row: row.get(STORE_COUNTED.name, 0.0))
    sums: dict[str, float] = {}
    for row in rows:
        for name, value in row.items():
            sums[name] = sums.get(name, 0.0) + value
    by_meter: dict[str, dict[tuple[str, ...], float]] = {}
    for name, value in sums.items():
        of, *labels = name.split(SEPARATOR)
        by_meter.setdefault(of, {})[tuple(labels)] = value
    for meter in METERS:
        series = by_meter.get(meter.name, {})
        match meter:
            case Counter():
                counter = CounterMetricFamily(meter.name, meter.help, labels=meter.labels)
                if not meter.labels:
                    series.setdefault((), 0.0)
                for values, count in sorted(series.items()):
                    counter.add_metric(values, count)
                yield counter
            case Gauge() if meter.is_shared:
                if newest.get(STORE_COUNTED.name):
                    yield GaugeMetricFamily(meter.name, meter.help, value=newest.get(meter.name, 0.0))
            case Gauge():
                yield GaugeMetricFamily(meter.name, meter.help, value=series.get((), 0.0))
            case Histogram():
                yield _histogram(meter, series)


def _histogram(meter: Histogram, series: dict[tuple[str, ...], float]) -> HistogramMetricFamily:
    family = HistogramMetricFamily(meter.name, meter.help, labels=meter.labels)
    for values in sorted({key[:-1] for key in series}):
        total, buckets = 0.0, []
        for bound in (*meter.bounds, inf):
            total += series.get((*values, str(bound)), 0.0)
            buckets.append(("+Inf" if bound == inf else str(bound), total))
        family.add_metric(values, buckets, series.get((*values, "sum"), 0.0))
    return family
