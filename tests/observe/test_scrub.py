"""A daemon that reads all of its content: what its metrics and its log tell of that."""

from __future__ import annotations

import time
from collections.abc import Callable

from tests.cli.test_check import harm
from tests.http.daemon import Daemon
from tests.observe.test_daemon import Start, lines, metrics, narinfo_name, push
from tests.observe.test_daemon import start_daemon as start_daemon  # noqa: PLC0414 - a fixture
from tvix_store.testing.content import noise

SECONDS = 2
DAYS = str(SECONDS / 86_400)


def wait_for(daemon: Daemon, holds: Callable[[dict[tuple[str, ...], float]], bool]) -> dict[tuple[str, ...], float]:
    """The metrics, when they are as wanted."""
    deadline = time.monotonic() + 60
    while not holds(now := metrics(daemon)):
        assert time.monotonic() < deadline, now
        time.sleep(0.1)
    return now


def test_damage_is_found_counted_and_told_of_and_goes_with_the_next_push(start_daemon: Start) -> None:
    daemon = start_daemon("--scrub-days", DAYS)
    path = push(daemon, "content")
    begun = time.time()
    now = wait_for(daemon, lambda now: now["tvix_store_scrub_ended_timestamp_seconds",] > begun)
    assert now["tvix_store_scrub_ended_timestamp_seconds",] <= time.time()
    assert now["tvix_store_scrub_read_bytes_total",] >= 1000
    assert now["tvix_store_scrub_damaged_total",] == now["tvix_store_scrub_unreadable_total",] == 0
    assert 0 <= now["tvix_store_scrub_position_ratio",] <= 1
    harm(daemon.program.store, noise(1000, "content"))
    wait_for(daemon, lambda now: now["tvix_store_scrub_damaged_total",] == 1)
    lines(daemon, "the scrub has found that b3:")
    deadline = time.monotonic() + 20
    while daemon.get(narinfo_name(path)).status != 404:
        assert time.monotonic() < deadline
    assert daemon.get("/readyz").status == 200
    push(daemon, "content")
    assert daemon.get(narinfo_name(path)).status == 200
