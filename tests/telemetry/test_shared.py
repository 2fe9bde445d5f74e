"""Counts of several processes: their sums, whatever writes and dies."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tvix_store.telemetry import meters
from tvix_store.telemetry.shared import Row, SharedRows

NAMES = st.text(min_size=1, max_size=60)


@pytest.fixture(autouse=True)
def _private_row() -> Iterator[None]:
    """What the test counts is forgotten."""
    meters.count_in(Row.private())
    yield
    meters.count_in(Row.private())


@given(st.lists(st.tuples(st.integers(0, 2), NAMES, st.integers(1, 1000)), max_size=60))
def test_rows_tell_what_was_counted_in_them(counted: list[tuple[int, str, int]]) -> None:
    shared = SharedRows(3)
    rows = [shared.row(number) for number in range(3)]
    expected: list[dict[str, float]] = [{}, {}, {}]
    for number, name, amount in counted:
        rows[number].values[rows[number].position(name)] += amount
        expected[number][name] = expected[number].get(name, 0) + amount
    assert shared.read() == expected
    # Who opens a row once more goes on with it.
    again = [shared.row(number) for number in range(3)]
    for number, row in enumerate(again):
        for name in expected[number]:
            row.values[row.position(name)] += 1
    assert shared.read() == [{name: value + 1 for name, value in each.items()} for each in expected]


def test_a_row_that_is_full_still_counts_what_it_has() -> None:
    shared = SharedRows(2)
    row = shared.row(0)
    for number in range(5000):
        row.values[row.position(f"name {number}")] += 1
    row.values[row.position("x" * 300)] += 1
    row.values[row.position("name 0")] += 1
    told, other = shared.read()
    assert len(told) == 4095
    assert told["name 0"] == 2
    assert set(list(told.values())[1:]) == {1.0}
    assert other == {}


def test_killed_processes_and_their_successors_count_together() -> None:
    shared = SharedRows(2)

    def count(row: int, times: int) -> None:
        """Count in a process that is then killed."""
        pid = os.fork()
        if not pid:
            meters.count_in(shared.row(row))
            for _ in range(times):
                meters.WORKER_STARTS.of().add()
            meters.IN_FLIGHT.of().add(7)
            meters.REQUEST_SECONDS.of("http", "nar").observe(0.3)
            os.kill(os.getpid(), signal.SIGKILL)
        os.waitpid(pid, 0)

    for _ in range(3):
        count(0, 10)
    count(1, 5)
    first, second = shared.read()
    assert first["tvix_store_worker_starts_total"] + second["tvix_store_worker_starts_total"] == 35
    assert first["tvix_store_request_duration_seconds\0http\0nar\0" + "0.5"] == 3
    assert first["tvix_store_requests_in_flight"] == 7, "that of a dead process is forgotten by the next one"
    meters.forget_now(shared.row(0))
    assert shared.read()[0]["tvix_store_requests_in_flight"] == 0
    assert shared.read()[0]["tvix_store_worker_starts_total"] == 30


def test_a_process_counts_in_its_row_from_then_on() -> None:
    shared = SharedRows(1)
    series = meters.CACHE_LOOKUPS.of("narinfo", "hit")
    distribution = meters.SYNC_SECONDS.of()
    series.add()
    distribution.observe(0.002)
    meters.count_in(shared.row(0))
    series.add(2)
    distribution.observe(1e9)
    [told] = shared.read()
    assert told["tvix_store_cache_lookups_total\0narinfo\0hit"] == 2
    assert told["tvix_store_sync_duration_seconds\0inf"] == 1
    assert told.get("tvix_store_sync_duration_seconds\0" + "0.005", 0) == 0


def test_names_of_meters_follow_the_habits_of_prometheus() -> None:
    names = [meter.name for meter in meters.METERS]
    assert len(set(names)) == len(names)
    for meter in meters.METERS:
        assert meter.name.startswith("tvix_store_")
        assert meter.help.endswith(".")
        assert meter.name.endswith("_total") == isinstance(meter, meters.Counter)
        if isinstance(meter, meters.Histogram):
            assert meter.name.endswith("_seconds")
            assert list(meter.bounds) == sorted(meter.bounds)
    declared = [value for value in vars(meters).values() if isinstance(value, meters.Counter | meters.Gauge | meters.Histogram)]
    assert declared == list(meters.METERS), "each meter is in the table"
