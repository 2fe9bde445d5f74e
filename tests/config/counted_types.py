"""Types of a composition that note when they are opened and closed."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from tvix_store.backends import memory
from tvix_store.config.composition.node import Layer, Node, Parts
from tvix_store.config.composition.parameter import TEXT, parameter, reference
from tvix_store.services.offer import Offer

opened: list[Layer] = []
closed: list[Layer] = []


@dataclass(frozen=True)
class Source(Layer):
    """A store in memory."""

    label: str = field(metadata=parameter(TEXT))

    async def open(self, parts: Parts) -> Offer:
        return _noted(self, await memory.open_store())


@dataclass(frozen=True)
class Pair(Layer):
    """A layer over two others: what is put goes to `far`."""

    near: Node = field(metadata=reference())
    far: Node = field(metadata=reference())

    @property
    def kept(self) -> Node:
        return self.far

    async def open(self, parts: Parts) -> Offer:
        near, far = await parts.offer(self.near), await parts.offer(self.far)
        assert {self.near.terms, self.far.terms} <= set(opened)
        assert near.blobs is not None
        return _noted(self, replace(far))


def _noted(terms: Layer, offer: Offer) -> Offer:
    opened.append(terms)

    async def close() -> None:
        closed.append(terms)

    return replace(offer, close=close)
