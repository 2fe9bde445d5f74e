"""RememberingNarService: computes what is true of a NAR once, and remembers it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from tvix_store.model.nodes import Node
from tvix_store.model.path_info import NarFacts
from tvix_store.services.blobs import BlobService
from tvix_store.services.directories import DirectoryService
from tvix_store.services.nar import NarCache

_MAX_RUNNING = 4
"""Calculations at once; others wait. Each keeps a core busy for as long as it runs, and holds some 30 MB of a large tree."""


@dataclass(slots=True)
class _Calculation:
    task: asyncio.Task[NarFacts]
    waiters: int = 0


class RememberingNarService:
    """A NarService over the content that it renders and a cache.

    Callers that ask for the same node at once share one calculation.
    """

    learns = True

    def __init__(self, blobs: BlobService, directories: DirectoryService, cache: NarCache) -> None:
        self._blobs = blobs
        self._directories = directories
        self._cache = cache
        self._calculations: dict[Node, _Calculation] = {}
        self._room = asyncio.Semaphore(_MAX_RUNNING)

    async def calculate(self, node: Node) -> NarFacts:
        facts = await self._cache.get(node)
        return facts or await self._shared(node)

    async def record(self, node: Node, facts: NarFacts) -> None:
        await self._cache.put(node, facts)

    async def _shared(self, node: Node) -> NarFacts:
        """The result of the running calculation, or of a new one; it ends early when nobody waits for it any more."""
        calculation = self._calculations.get(node)
        if calculation is None:
            calculation = self._calculations[node] = _Calculation(asyncio.create_task(self._calculated(node)))
        calculation.waiters += 1
        try:
            return await asyncio.shield(calculation.task)
        finally:
            calculation.waiters -= 1
            if not calculation.waiters:
                calculation.task.cancel()
                del self._calculations[node]

    async def _calculated(self, node: Node) -> NarFacts:
        from tvix_store.operations.calculate_nar import calculate_nar  # not before it is needed: 8 ms of a command's start

        async with self._room:
            facts = await calculate_nar(self._blobs, self._directories, node)
        await self._cache.put(node, facts)
        return facts
