"""The types of a composition that are a layer over another instance."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tvix_store.config.composition.leaves import Memory
from tvix_store.config.composition.node import Layer, Leaf, Node, Parts, Terms
from tvix_store.config.composition.parameter import COUNT, PATH, SECONDS, SIZE, TEXT, parameter, reference
from tvix_store.config.composition.upstreams import Upstreams
from tvix_store.model.address import Address
from tvix_store.services.offer import Offer

if TYPE_CHECKING:
    from tvix_store.layers.cache.near import Near

_IN_MEMORY = 256 << 20
_ON_DISK = 10 << 30
"""Bytes of a cache that states no size."""
_LEAST_ON_DISK = 16 << 20
_A_PATH_INFO = 4 << 10
"""Bytes for each of the path infos that an `lru` may hold."""
_WHAT_IS_NEAR = (
    'what is near is a bounded part of what is far: leave near out and give a directory and a size, or refer to type = "memory" or '
    '"lru", or to a directory of its own: type = "local", or "objectstore" with file:///path'
)


@dataclass(frozen=True, slots=True)
class Cache(Layer):
    """A part of another instance, nearby. All puts go to `far`. What is put and read stays near, until others need the room.

    near: What keeps it, as snix has it: in memory, or in a directory. Of the far side of upstreams, it keeps the path infos.
    directory: Where it is kept, in place of `near`. Without both, it is in memory.
    size: The most bytes: by default 256 MiB in memory, 10 GiB in a directory.
    path_info_ttl: Seconds for which a path info is believed without asking again.
    negative_ttl: Seconds for which it is believed that there is none.
    """

    far: Node = field(metadata=reference())
    near: Node | None = field(default=None, metadata=reference())
    directory: str | None = field(default=None, metadata=parameter(PATH))
    size: int | None = field(default=None, metadata=parameter(SIZE))
    path_info_ttl: float = field(default=30.0, metadata=parameter(SECONDS))
    negative_ttl: float = field(default=3.0, metadata=parameter(SECONDS))

    def faults(self) -> Iterator[tuple[str, str]]:
        if isinstance(self.far.terms, Upstreams) and self.near is not None:
            return
        if self.near is not None and self.directory is not None:
            yield "directory", "near says where it is kept: leave one of the two out"
        elif self.near is not None and _placed(self.near) is None:
            yield "near", _WHAT_IS_NEAR
        elif self._place()[0] is not None and self._place()[1] < _LEAST_ON_DISK:
            yield "size", "a cache in a directory has at least 16M"

    def resolved(self) -> Terms:
        if isinstance(self.far.terms, Upstreams) and self.near is not None:
            return self.far.terms.keeping_in(self.near)
        return Cached(self.far, *self._place(), self.path_info_ttl, self.negative_ttl)

    def _place(self) -> tuple[str | None, int]:
        """The directory, or None for memory, and the bytes."""
        directory, size = (self.directory, None) if self.near is None else _placed(self.near) or (None, None)
        return directory, self.size or size or (_IN_MEMORY if directory is None else _ON_DISK)


@dataclass(frozen=True, slots=True)
class Cached(Layer):
    """What a `cache` is, with its place: a directory, or memory (None)."""

    far: Node = field(metadata=reference())
    directory: str | None
    size: int
    path_info_ttl: float
    negative_ttl: float

    @property
    def kept(self) -> Node:
        return self.far

    async def open(self, parts: Parts) -> Offer:
        from tvix_store.layers.cache.cached import cached

        far = await parts.offer(self.far)
        near: Near = parts.shared((self.directory, self.size), self._near)
        return cached(near, far, path_info_ttl=self.path_info_ttl, negative_ttl=self.negative_ttl)

    def _near(self) -> Near:
        if self.directory is None:
            from tvix_store.layers.cache.memory_near import MemoryNear

            return MemoryNear(self.size)
        from tvix_store.layers.cache.disk_near import DiskNear

        return DiskNear(Path(self.directory).absolute(), self.size)


@dataclass(frozen=True, slots=True)
class Retrying(Layer):
    """Another instance, whose calls are made again where it does not answer, if that does no harm."""

    inner: Node = field(metadata=reference())
    tries: int = field(default=5, metadata=parameter(COUNT))
    first_pause: float = field(default=0.1, metadata=parameter(SECONDS))
    longest_pause: float = field(default=5.0, metadata=parameter(SECONDS))
    total: float = field(default=30.0, metadata=parameter(SECONDS))
    budget: int = field(default=100, metadata=parameter(COUNT))

    async def open(self, parts: Parts) -> Offer:
        from tvix_store.layers.retrying import RetryTerms, retrying

        terms = RetryTerms(self.tries, self.first_pause, self.longest_pause, self.total, self.budget)
        return retrying(await parts.offer(self.inner), terms)


@dataclass(frozen=True, slots=True)
class Observed(Layer):
    """Another instance, whose calls are counted in the metrics, with `name` as the label `store`."""

    inner: Node = field(metadata=reference())
    name: str = field(metadata=parameter(TEXT))

    async def open(self, parts: Parts) -> Offer:
        from tvix_store.layers.observed import observed

        return observed(await parts.offer(self.inner), self.name)


@dataclass(frozen=True, slots=True)
class ReadOnly(Layer):
    """Another instance, whose puts are refused."""

    inner: Node = field(metadata=reference())

    async def open(self, parts: Parts) -> Offer:
        from tvix_store.layers.read_only import read_only

        return read_only(await parts.offer(self.inner))


def _placed(near: Node) -> tuple[str | None, int | None] | None:
    """Where the node that is near keeps things: a directory, or memory (None), and how many bytes. None for any other place."""
    if not isinstance(near.terms, Leaf):
        return None
    address = Address.parse(near.terms.address())
    match address.scheme:
        case "memory" | "objectstore+memory":
            return None, near.terms.size if isinstance(near.terms, Memory) else None
        case "lru":
            return None, int(address.parameters.get("capacity", 1000)) * _A_PATH_INFO
        case "local" | "objectstore+file" if address.path and not address.host:
            return address.path, None
        case _:
            return None
