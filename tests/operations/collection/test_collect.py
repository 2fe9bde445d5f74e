"""How many bytes a store may take by a policy."""

from __future__ import annotations

import pytest

from tvix_store.operations.collection.collect import Policy, allowed
from tvix_store.services.collection import Room

USED, FREE = 1000, 50


@pytest.mark.parametrize(
    ("policy", "bytes_allowed"),
    [
        (Policy(keep_for=1), None),
        (Policy(max_size=USED), None),
        (Policy(max_size=USED - 1), USED - 1),
        (Policy(min_free=FREE), None),
        (Policy(min_free=FREE + 200), USED - 200),
        (Policy(min_free=FREE + USED + 1), 0),
        (Policy(max_size=700, min_free=FREE + 200), 700),
        (Policy(max_size=900, min_free=FREE + 200), USED - 200),
    ],
)
def test_what_is_used_is_bounded_by_size_and_by_what_is_to_be_free(policy: Policy, bytes_allowed: int | None) -> None:
    assert allowed(policy, Room(USED, FREE)) == bytes_allowed
