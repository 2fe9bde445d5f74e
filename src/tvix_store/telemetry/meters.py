"""Meters: what is counted and measured, as one table, and the cheap ways to count.

A meter with a value for each of its labels is a *series*. To add to a series costs about 0.1 µs. Labels have few values: routes,
methods, statuses, names of upstreams. A raw path, or anything else that a client makes up, is never one.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from dataclasses import dataclass
from functools import cache
from math import inf

from tvix_store.telemetry.shared import Row

SEPARATOR = "\0"
"""Between the name of a series' meter and its labels' values, in the name of an entry."""
_LATENCIES = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, 600.0)
_SLOW = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0)

_row = Row.private()
_values = _row.values
_known: dict[str, Series] = {}
_lock = threading.RLock()


class Series:
    """One number of this process. One thread at a time adds to it."""

    __slots__ = ("_at",)

    def __init__(self, at: int) -> None:
        self._at = at

    def add(self, amount: float = 1.0) -> None:
        _values[self._at] += amount

    def add_in_any_thread(self, amount: float = 1.0) -> None:
        """As `add`, also while other threads do the same."""
        with _lock:
            _values[self._at] += amount

    def set(self, value: float) -> None:
        _values[self._at] = value

    @property
    def value(self) -> float:
        return _values[self._at]


def _series(name: str) -> Series:
    with _lock:
        if name not in _known:
            _known[name] = Series(_row.position(name))
        return _known[name]


def current_row() -> Row:
    """The row in which this process counts now."""
    return _row


def count_in(row: Row) -> None:
    """Count in `row` from now on, and go on with the counts that are there. What was counted elsewhere until now is left out."""
    global _row, _values
    with _lock:
        _row, _values = row, row.values
        for name, series in _known.items():
            series._at = row.position(name)  # noqa: SLF001 - of this module
    forget_now(row)


def forget_now(row: Row) -> None:
    """Set the gauges of a row to 0 whose process has ended. They tell of now; counters tell of all that ever was."""
    for meter in METERS:
        if isinstance(meter, Gauge) and not meter.is_shared:
            row.values[row.position(meter.name)] = 0


@dataclass(frozen=True, slots=True)
class Counter:
    """A number that only grows. Its name ends in `_total`."""

    name: str
    help: str
    labels: tuple[str, ...] = ()

    def of(self, *values: str) -> Series:
        """The series with these values of the labels. Hot paths keep it."""
        return _series(SEPARATOR.join((self.name, *values)))


@dataclass(frozen=True, slots=True)
class Gauge:
    """A number that tells of now. `is_shared`: all workers share what it tells of, and the newest of their numbers is right."""

    name: str
    help: str
    is_shared: bool = False
    labels: tuple[str, ...] = ()

    def of(self) -> Series:
        return _series(self.name)


class Distribution:
    """How often a quantity was how large, in this process."""

    __slots__ = ("_bounds", "_counts", "_name", "_sum")

    def __init__(self, name: str, bounds: tuple[float, ...]) -> None:
        self._name = name
        self._bounds = bounds
        self._counts: list[Series | None] = [None] * (len(bounds) + 1)
        self._sum = _series(name + SEPARATOR + "sum")

    def observe(self, quantity: float) -> None:
        at = bisect_left(self._bounds, quantity)
        count = self._counts[at]
        if count is None:
            bound = self._bounds[at] if at < len(self._bounds) else inf
            count = self._counts[at] = _series(f"{self._name}{SEPARATOR}{bound}")
        count.add()
        self._sum.add(quantity)

    def observe_in_any_thread(self, quantity: float) -> None:
        """As `observe`, also while other threads do the same."""
        with _lock:
            self.observe(quantity)


@dataclass(frozen=True, slots=True)
class Histogram:
    """A distribution of seconds over `bounds`, each the upper end of a bucket."""

    name: str
    help: str
    labels: tuple[str, ...] = ()
    bounds: tuple[float, ...] = _LATENCIES

    def of(self, *values: str) -> Distribution:
        return _distribution(SEPARATOR.join((self.name, *values)), self.bounds)


@cache
def _distribution(name: str, bounds: tuple[float, ...]) -> Distribution:
    return Distribution(name, bounds)


Meter = Counter | Gauge | Histogram


def entry(meter: Meter, *rest: str) -> str:
    """The name of an entry of a row: that of a meter, the values of its labels, and of a histogram the end of a bucket or `sum`."""
    return SEPARATOR.join((meter.name, *rest))


_REQUEST = ("protocol", "route")
REQUESTS = Counter("tvix_store_requests_total", "Requests that have ended.", (*_REQUEST, "method", "status"))
REQUEST_SECONDS = Histogram("tvix_store_request_duration_seconds", "Time from a request to the end of its answer.", _REQUEST)
BYTES_IN = Counter("tvix_store_request_bytes_total", "Bytes of the bodies of requests.", _REQUEST)
BYTES_OUT = Counter("tvix_store_response_bytes_total", "Bytes of the bodies of answers.", _REQUEST)
IN_FLIGHT = Gauge("tvix_store_requests_in_flight", "Requests that are being answered.")
PATHS_PUSHED = Counter("tvix_store_paths_pushed_total", "Path infos that clients have put.", ("protocol",))
PATHS_REMOVED = Counter("tvix_store_paths_removed_total", "Paths that were removed since nobody used them.")
COLLECTIONS = Counter("tvix_store_collections_total", "Runs of the collection that came to their end.")
COLLECTIONS_FAILED = Counter("tvix_store_collections_failed_total", "Runs of the collection that failed.")
COLLECTED_BYTES = Counter("tvix_store_collected_bytes_total", "Bytes of content that were deleted since no path needs them.")
FREED_BYTES = Counter("tvix_store_freed_bytes_total", "Bytes that collections have given back to the disk.")
CONDEMNED_BYTES = Gauge("tvix_store_condemned_bytes", "Bytes of content that no path needs, and that wait to be deleted.")
COLLECTED_AT = Gauge("tvix_store_collected_timestamp_seconds", "When the last collection ended that did not fail.")
RETENTION_RUNS = Counter("tvix_store_retention_runs_total", "Looks through a named cache for what nobody uses.")
INDEX_SCRUBS = Counter("tvix_store_index_scrubs_total", "Looks through the whole index of a local store for damage.")
SCRUB_BYTES = Counter("tvix_store_scrub_read_bytes_total", "Bytes of content that were read to look for damage.")
SCRUB_DAMAGED = Counter("tvix_store_scrub_damaged_total", "Contents that were found damaged by reading everything.")
SCRUB_UNREADABLE = Counter("tvix_store_scrub_unreadable_total", "Contents that the disk did not give.")
SCRUB_POSITION = Gauge("tvix_store_scrub_position_ratio", "How much of the content was read in this round.")
SCRUB_ENDED = Gauge("tvix_store_scrub_ended_timestamp_seconds", "When all content had been read last.")
CACHE_LOOKUPS = Counter("tvix_store_cache_lookups_total", "Questions to a memory of the daemon.", ("cache", "result"))
UPSTREAM_REQUESTS = Counter(
    "tvix_store_upstream_requests_total", "Questions to an upstream, and fetches, by outcome.", ("upstream", "kind", "outcome")
)
UPSTREAM_SECONDS = Histogram(
    "tvix_store_upstream_request_duration_seconds", "Time of a question to an upstream, or of a fetch.", ("upstream", "kind")
)
UPSTREAM_NAR_BYTES = Counter("tvix_store_upstream_nar_bytes_total", "Bytes of the NARs that were fetched.", ("upstream",))
SERVICE_CALLS = Counter(
    "tvix_store_service_calls_total",
    "Calls of a store's services and powers, by outcome.",
    ("store", "service", "method", "outcome"),
)
SERVICE_SECONDS = Histogram(
    "tvix_store_service_call_duration_seconds", "Time of a call of a store's service.", ("store", "service", "method")
)
SERVICE_BYTES = Counter("tvix_store_service_bytes_total", "Bytes of content in these calls.", ("store", "service", "method"))
RETRIES = Counter("tvix_store_service_retries_total", "Calls that were repeated.", ("service", "method"))
COMMIT_SECONDS = Histogram("tvix_store_commit_duration_seconds", "Time of a commit of a local store.", bounds=_SLOW)
SYNC_SECONDS = Histogram("tvix_store_sync_duration_seconds", "Time of a sync of a file of a local store.", bounds=_SLOW)
LOGGED = Counter("tvix_store_log_lines_total", "Lines for the log, with those that were left out.", ("level",))
WORKER_STARTS = Counter("tvix_store_worker_starts_total", "Workers that have begun to serve.")
WORKERS = Gauge("tvix_store_workers", "Workers that serve.")
STORE_COUNTED = Gauge("tvix_store_store_counted_timestamp_seconds", "When the store was counted last.", is_shared=True)
STORE_PATHS = Gauge("tvix_store_store_paths", "Store paths.", is_shared=True)
STORE_DIRECTORIES = Gauge("tvix_store_store_directories", "Directories.", is_shared=True)
STORE_CHUNKS = Gauge("tvix_store_store_chunks", "Chunks.", is_shared=True)
STORE_LOGICAL = Gauge("tvix_store_store_logical_bytes", "Sum of the sizes of all NARs.", is_shared=True)
STORE_UNIQUE = Gauge("tvix_store_store_unique_bytes", "Bytes of content, each chunk once.", is_shared=True)
STORE_STORED = Gauge("tvix_store_store_stored_bytes", "Bytes of content as it is stored, compressed.", is_shared=True)
STORE_DISK = Gauge("tvix_store_store_disk_bytes", "Bytes of the store on the disk.", is_shared=True)
DEDUP_RATIO = Gauge("tvix_store_store_dedup_ratio", "Logical bytes by unique bytes.", is_shared=True)
COMPRESSION_RATIO = Gauge("tvix_store_store_compression_ratio", "Unique bytes by stored bytes.", is_shared=True)
DISK_FREE = Gauge("tvix_store_disk_free_bytes", "Bytes that are free on the disk of a local store.", is_shared=True)
DISK_SIZE = Gauge("tvix_store_disk_size_bytes", "Bytes of the disk of a local store.", is_shared=True)

METERS: tuple[Meter, ...] = tuple(each for each in list(globals().values()) if isinstance(each, Meter))
"""All of them, as they stand above."""
