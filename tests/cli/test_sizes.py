from __future__ import annotations

import pytest

from tvix_store.cli.sizes import human


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.00 KiB"),
        (10239, "10.0 KiB"),
        (102390, "100 KiB"),
        (1048575, "1.00 MiB"),
        (234 << 20, "234 MiB"),
        (1 << 40, "1.00 TiB"),
        (5000 << 50, "5000 PiB"),
    ],
)
def test_a_size_is_shown_with_three_digits(size: int, text: str) -> None:
    assert human(size) == text
