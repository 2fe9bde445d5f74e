"""The types of a composition that are a layer over another instance."""

from __future__ import annotations

from dataclasses import dataclass, field

from tvix_store.config.composition.node import Layer, Node, Parts
from tvix_store.config.composition.parameter import reference
from tvix_store.services.offer import Offer


@dataclass(frozen=True, slots=True)
class ReadOnly(Layer):
    """Another instance, whose puts are refused."""

    inner: Node = field(metadata=reference())

    async def open(self, parts: Parts) -> Offer:
        from tvix_store.layers.read_only import read_only

        return read_only(await parts.offer(self.inner))
