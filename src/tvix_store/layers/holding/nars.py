"""HeldNars: the facts of NARs that a named cache may know."""

from __future__ import annotations

from tvix_store.layers.holding.held import Held, Kind
from tvix_store.model.digest import Digest
from tvix_store.model.nodes import Node, encode_node
from tvix_store.model.path_info import NarFacts
from tvix_store.services.nar import KnownNars


class HeldNars:
    """KnownNars over those of the store, which forgets them where content turns out to be damaged.

    Facts are told only of nodes whose NAR was sent to this cache, or was calculated here from what it holds. Without that, a
    root node alone would show whether another cache has its content.
    """

    def __init__(self, inner: KnownNars, held: Held) -> None:
        self._inner = inner
        self._held = held

    async def get(self, node: Node) -> NarFacts | None:
        return await self._inner.get(node) if await self._held.has(Kind.NAR, nar_key(node)) else None

    def begin(self) -> int:
        return self._inner.begin()

    async def put(self, node: Node, facts: NarFacts, since: int) -> None:
        await self._inner.put(node, facts, since)
        await self._held.put(Kind.NAR, (nar_key(node),))


def nar_key(node: Node) -> Digest:
    """What stands for the NAR of a node in `Held`."""
    return Digest.of(encode_node(b"", node))
