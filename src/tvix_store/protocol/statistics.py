"""The messages of StatisticsService: how much a store holds."""

from __future__ import annotations

from collections.abc import Sequence

from tvix_store.model import wire

COUNTS = 8
"""Fields of the message Statistics, numbered from 1, in the order of `services.store.Stats`."""


def encode_statistics(counts: Sequence[int]) -> bytes:
    """The message Statistics."""
    return b"".join(wire.uint_field(field, count) for field, count in enumerate(counts, 1))


def decode_statistics(message: bytes) -> list[int]:
    """The counts in a message Statistics.

    Raises:
        InvalidError: the message is malformed.
    """
    counts = [0] * COUNTS
    for field, value in wire.few_fields(message):
        if field <= COUNTS:
            counts[field - 1] = wire.as_uint(field, value)
    return counts
