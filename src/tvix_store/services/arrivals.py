"""Arrivals: an optional power of a store, to tell which paths came last."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol


class Arrivals(Protocol):
    """Tells in which order path infos were stored."""

    async def order(self) -> Mapping[bytes, int]:
        """A number for each output hash. A path info that was stored, or changed, later has a higher one."""
        ...
