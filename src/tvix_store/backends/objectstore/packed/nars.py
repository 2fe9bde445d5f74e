"""PackedNars: the facts of NARs, in the footers of commits."""

from __future__ import annotations

from collections import OrderedDict

from blake3 import blake3

from tvix_store.backends.objectstore.packed.contents import NarRow
from tvix_store.backends.objectstore.packed.engine import Engine
from tvix_store.model.nodes import Node, encode_node
from tvix_store.model.path_info import NarFacts

_NOTED = 100_000
"""Facts that are noted; some 30 MB."""


class PackedNars:
    """The KnownNars of a packed bucket. What one front end has calculated, the others need not."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._noted: OrderedDict[bytes, NarFacts] = OrderedDict()

    def note(self, node: Node, facts: NarFacts) -> None:
        """Note what a path info says whose NAR was calculated before it was put.

        Its content is there since, as far as this machine knows: not where damage was seen.
        """
        self._noted[node_key(node)] = facts
        if len(self._noted) > _NOTED:
            self._noted.popitem(last=False)

    async def get(self, node: Node) -> NarFacts | None:
        key = node_key(node)
        facts = self._engine.view.nar(key)
        if facts is None and key in self._noted and self._engine.view.epoch == 0:
            return self._noted[key]
        if facts is None:
            # To calculate them costs reading all content.
            await self._engine.refresher.refresh(self._engine.settings.fresh)
            facts = self._engine.view.nar(key)
        return facts

    def begin(self) -> int:
        return self._engine.view.epoch

    async def put(self, node: Node, facts: NarFacts, since: int) -> None:
        if since == self._engine.view.epoch:
            await self._engine.committer.put((), [NarRow(node_key(node), facts)])


def node_key(node: Node) -> bytes:
    """Names a root node in a footer: 32 bytes."""
    return blake3(encode_node(b"", node)).digest()
