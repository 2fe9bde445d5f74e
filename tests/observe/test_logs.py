"""The log: its forms, and errors that come too often."""

from __future__ import annotations

import io
import json
import logging
import os
from collections.abc import Iterator

import pytest

from tvix_store.errors import UnavailableError
from tvix_store.observe import logs
from tvix_store.telemetry import notes
from tvix_store.telemetry.notes import Notes

LOG = logging.getLogger("tests.observe")


class Written:
    """What the log says."""

    def __init__(self) -> None:
        self.stream = io.StringIO()

    @property
    def lines(self) -> list[str]:
        return self.stream.getvalue().splitlines()


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> Iterator[Written]:
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    yield Written()
    root.handlers[:] = before
    root.setLevel(level)


@pytest.fixture
def request_notes() -> Iterator[Notes]:
    """A request is answered."""
    noted = Notes()
    token = notes.current.set(noted)
    yield noted
    notes.current.reset(token)


def test_text(written: Written) -> None:
    logs.set_up(stream=written.stream)
    LOG.debug("nobody reads this")
    LOG.info("hello %s", "there")
    logging.getLogger(logs.SAID).info("tvix-store 1 serves")
    LOG.warning("a\nb\x1b[31m")
    assert written.lines == [
        "tvix-store: INFO: hello there",
        "tvix-store 1 serves",
        "tvix-store: WARNING: a b [31m",
    ]


def test_levels(written: Written) -> None:
    logs.set_up("error", stream=written.stream)
    LOG.warning("nobody reads this")
    LOG.error("but this")
    assert written.lines == ["tvix-store: ERROR: but this"]


def test_lines_of_a_request_name_it(written: Written, request_notes: Notes) -> None:
    logs.set_up(stream=written.stream)
    LOG.error("it fails")
    assert request_notes._id
    assert written.lines == [f"tvix-store: ERROR: it fails [request {request_notes.id}]"]


def test_json(written: Written, request_notes: Notes) -> None:
    logs.set_up("debug", "json", written.stream)
    LOG.debug("a\n%s", '"b"')
    LOG.error("it fails", exc_info=ZeroDivisionError("no"))
    logging.getLogger(logs.SAID).info("tvix-store 1 serves")
    first, second, third = map(json.loads, written.lines)
    assert first["time"].endswith("+00:00")
    del first["time"]
    assert first == {"level": "DEBUG", "logger": "tests.observe", "message": 'a\n"b"', "request_id": request_notes.id}
    assert second["message"] == "it fails"
    assert second["exception"].endswith("ZeroDivisionError: no")
    assert third["message"] == "tvix-store 1 serves"


def test_a_cause_has_one_line_in_ten_seconds(written: Written, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1000.0]
    monkeypatch.setattr("tvix_store.observe.logs.time.monotonic", lambda: clock[0])
    logs.set_up(stream=written.stream)
    for number in range(100):
        digest = f"{number:064x}"
        LOG.error("blob b3:%s is damaged", digest)
        LOG.error("%s", UnavailableError(f"the disk fails at {digest}"))
        clock[0] += 0.05
    assert len(written.lines) == 2
    clock[0] += 10
    LOG.error("%s", UnavailableError(f"the disk fails at {'f' * 64}"))
    assert written.lines[2] == f"tvix-store: ERROR: the disk fails at {'f' * 64} (and 99 more times)"
    LOG.error("another cause")
    assert written.lines[3] == "tvix-store: ERROR: another cause"
    clock[0] += 11
    LOG.error("another cause")
    assert written.lines[4] == "tvix-store: ERROR: another cause"


def test_warnings_are_seldom_only_where_clients_cause_them(
    written: Written, monkeypatch: pytest.MonkeyPatch, request_notes: Notes
) -> None:
    logs.set_up(stream=written.stream)
    for _ in range(3):
        LOG.warning("a plan was not kept")
    assert len(written.lines) == 1
    notes.current.set(None)
    for _ in range(3):
        LOG.warning("a pack is missing")
    assert len(written.lines) == 4


def test_causes_that_are_remembered_are_bounded(written: Written) -> None:
    seldom = logs.SeldomErrors()
    for number in range(3000):
        record = logging.LogRecord("x", logging.ERROR, "", 0, f"cause {number}", (), None)
        assert seldom.filter(record)
        assert not seldom.filter(record)
    assert len(seldom._left_out) <= 1000


def test_processes_that_are_forked_share_the_clock_of_a_cause() -> None:
    seldom = logs.SeldomErrors()
    record = logging.LogRecord("x", logging.ERROR, "", 0, "the disk is full", (), None)
    assert seldom.filter(record)
    child = os.fork()
    if not child:
        os._exit(int(seldom.filter(record)))
    assert os.waitpid(child, 0)[1] == 0
    assert not seldom.filter(logging.LogRecord("y", logging.ERROR, "", 0, "the disk is full", (), None)), "whoever says it"
