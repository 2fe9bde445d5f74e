"""MemoryNars: the facts of NARs in a dict."""

from __future__ import annotations

from tvix_store.model.nodes import Node
from tvix_store.model.path_info import NarFacts

_MOST = 100_000
"""Nodes; some 50 MB."""


class MemoryNars:
    """KnownNars in memory. It keeps the newest."""

    def __init__(self) -> None:
        self._facts: dict[Node, NarFacts] = {}

    async def get(self, node: Node) -> NarFacts | None:
        return self._facts.get(node)

    def begin(self) -> int:
        return 0

    async def put(self, node: Node, facts: NarFacts, since: int) -> None:
        self._facts[node] = facts
        if len(self._facts) > _MOST:
            del self._facts[next(iter(self._facts))]
