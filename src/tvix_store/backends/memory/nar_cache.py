"""MemoryNarCache: NAR facts in a dict."""

from __future__ import annotations

from tvix_store.model.nodes import Node
from tvix_store.model.path_info import NarFacts


class MemoryNarCache:
    """A NarCache in memory."""

    def __init__(self) -> None:
        self._facts: dict[Node, NarFacts] = {}

    async def get(self, node: Node) -> NarFacts | None:
        return self._facts.get(node)

    async def put(self, node: Node, facts: NarFacts) -> None:
        self._facts[node] = facts
