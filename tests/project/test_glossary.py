"""The glossary leads a newcomer to the room and to the test of each word."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROWS = re.findall(r"^\| \*\*(.+?)\*\*.* \| (.+?) \| (.+?) \|$", (ROOT / "docs/design/glossary.md").read_text(), re.MULTILINE)


def paths(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def test_every_word_has_a_row_with_a_room_and_a_test() -> None:
    assert len(ROWS) >= 25
    for word, room, test in ROWS:
        assert paths(room), f"{word} has no room"
        assert paths(test), f"{word} has no test"


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_the_room_and_the_test_of_a_word_exist(row: tuple[str, str, str]) -> None:
    _, room, test = row
    for path in paths(room):
        assert (ROOT / "src/tvix_store" / path).exists(), path
    for path in paths(test):
        place = "src/tvix_store" if path.startswith("testing/") else "tests"
        assert (ROOT / place / path).exists(), path
