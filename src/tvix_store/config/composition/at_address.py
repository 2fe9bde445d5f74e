"""The type that an address is short for. Every command imports it, and not the other types."""

from __future__ import annotations

from dataclasses import dataclass, field

from tvix_store.config.composition.node import Leaf
from tvix_store.config.composition.parameter import ADDRESS, parameter


@dataclass(frozen=True, slots=True)
class AtAddress(Leaf):
    """Whatever is at an address."""

    url: str = field(metadata=parameter(ADDRESS))

    def address(self) -> str:
        return self.url
