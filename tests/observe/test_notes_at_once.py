"""Notes of requests that one worker answers at the same time."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from tests.observe.test_daemon import Start, lines, push
from tests.observe.test_daemon import start_daemon as start_daemon  # noqa: PLC0414 - a fixture


def test_each_line_of_the_access_log_tells_of_its_own_request(start_daemon: Start) -> None:
    daemon = start_daemon("--workers", "1", "--access-log")
    names = [f"path-{number}" for number in range(60)]
    with ThreadPoolExecutor(12) as pool:
        paths = dict(zip(names, pool.map(lambda name: push(daemon, name), names), strict=True))
    for line in lines(daemon, "request_id=push-", len(names)):
        name = line.partition("request_id=push-")[2].split()[0]
        assert line.endswith(f" pushed={paths[name]}"), line
