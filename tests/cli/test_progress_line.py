"""Progress in words, where there is much room and where there is little."""

from __future__ import annotations

import pytest

from tvix_store.cli.progress_line import Progress, plain_line, span, terminal_line

HALF = Progress("hello-2.12", total=3 << 30, done=3 << 29, count=1234, rate=100 << 20)


@pytest.mark.parametrize(
    ("columns", "line"),
    [
        (120, "hello-2.12 [###############...............]  50 %  1.50 GiB of 3.00 GiB  100 MiB/s  15 s left  1234 files"),
        (80, "hello-2.12 [########........]  50 %  1.50 GiB of 3.00 GiB  100 MiB/s  15 s left"),
        (69, "hello-2.12  50 %  1.50 GiB of 3.00 GiB  100 MiB/s  15 s left"),
        (60, "hello-2.12  50 %  1.50 GiB  100 MiB/s  15 s left"),
        (40, "hello-2.12  50 %  1.50 GiB  15 s left"),
        (20, "hello...  50 %"),
        (6, "hello"),
        (1, ""),
    ],
)
def test_a_line_tells_what_there_is_room_for(columns: int, line: str) -> None:
    assert terminal_line(HALF, columns) == line


def test_every_width_is_kept() -> None:
    for columns in range(1, 200):
        assert len(terminal_line(HALF, columns)) < columns


def test_what_nobody_knows_is_not_told() -> None:
    assert terminal_line(Progress("tree"), 80) == "tree"
    assert terminal_line(Progress("tree", done=1000, count=2, counted="path"), 80) == "tree  1000 B  2 paths"
    assert terminal_line(Progress("tree", count=1), 80) == "tree  1 file"
    assert terminal_line(Progress("copy", count=1, counted="path", things=5), 80) == "copy  1 of 5 paths"
    assert terminal_line(Progress("tree", total=0), 80) == "tree"


def test_more_than_was_expected_is_all() -> None:
    assert "100 %" in terminal_line(Progress("tree", total=1000, done=1200, rate=10), 80)


def test_a_log_is_told_all() -> None:
    assert plain_line(HALF) == "tvix-store: hello-2.12: 50 %, 1.50 GiB of 3.00 GiB, 100 MiB/s, 15 s left, 1234 files"
    assert plain_line(Progress("tree")) == "tvix-store: tree"


def test_a_span_is_told_roughly() -> None:
    assert [span(each) for each in (0.4, 99, 100, 5999, 6000, 90_000)] == ["0 s", "99 s", "2 min", "100 min", "2 h", "25 h"]
