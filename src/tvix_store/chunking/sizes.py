"""ChunkSizes: how large the chunks of a store are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from tvix_store.errors import InvalidError

KIB = 1024
MIB = 1024 * KIB
_BOUNDS = {"minimum": (64, MIB), "average": (256, 4 * MIB), "maximum": (KIB, 16 * MIB)}
"""The range that pyfastcdc and the Rust crate accept, in bytes."""


@dataclass(frozen=True, slots=True)
class ChunkSizes:
    """Bounds and target of a chunk's size in bytes.

    No chunk is larger than `maximum`, and none but a blob's last is smaller than `minimum`.

    Raises:
        InvalidError: one is out of the algorithm's range, or they are not in order.
    """

    minimum: int
    average: int
    maximum: int

    def __post_init__(self) -> None:
        for name, (least, most) in _BOUNDS.items():
            if not least <= getattr(self, name) <= most:
                raise InvalidError(f"chunk sizes: the {name} must be {least} to {most} bytes, not {getattr(self, name)}")
        if not self.minimum <= self.average <= self.maximum:
            raise InvalidError(f"chunk sizes: {self.minimum}, {self.average}, {self.maximum} bytes are not in order")

    @classmethod
    def of_average(cls, average: int) -> Self:
        """Chunks of about `average` bytes, between a quarter and four times that.

        Raises:
            InvalidError: `average` is not 256 bytes to 4 MiB.
        """
        return cls(average // 4, average, average * 4)


DEFAULT_SIZES = ChunkSizes.of_average(128 * KIB)
"""A Go toolchain takes 1 % less room than with 64 KiB, and large blobs have half as many chunks."""
