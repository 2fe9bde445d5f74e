"""RememberingNarService: computes what is true of a NAR once, and remembers it."""

from __future__ import annotations

from tvix_store.model.nodes import Node
from tvix_store.model.path_info import NarFacts
from tvix_store.operations.calculate_nar import calculate_nar
from tvix_store.services.blobs import BlobService
from tvix_store.services.directories import DirectoryService
from tvix_store.services.nar import NarCache


class RememberingNarService:
    """A NarService over the content that it renders and a cache."""

    learns = True

    def __init__(self, blobs: BlobService, directories: DirectoryService, cache: NarCache) -> None:
        self._blobs = blobs
        self._directories = directories
        self._cache = cache

    async def calculate(self, node: Node) -> NarFacts:
        facts = await self._cache.get(node)
        if facts is None:
            facts = await calculate_nar(self._blobs, self._directories, node)
            await self._cache.put(node, facts)
        return facts

    async def record(self, node: Node, facts: NarFacts) -> None:
        await self._cache.put(node, facts)
