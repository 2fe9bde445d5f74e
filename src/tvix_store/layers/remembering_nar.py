"""RememberingNarService: computes what is true of a NAR once, and remembers it."""

from __future__ import annotations

import asyncio

from tvix_store.concurrency.single_flight import SingleFlight
from tvix_store.model.nodes import Node
from tvix_store.model.path_info import NarFacts
from tvix_store.services.blobs import BlobService
from tvix_store.services.directories import DirectoryService
from tvix_store.services.nar import KnownNars

_MAX_RUNNING = 4
"""Calculations at once; others wait. Each keeps a core busy for as long as it runs, and holds some 30 MB of a large tree."""


class RememberingNarService:
    """A NarService over the content that it renders, and what is known.

    Callers that ask for the same node at once share one calculation.
    """

    def __init__(self, blobs: BlobService, directories: DirectoryService, known: KnownNars) -> None:
        self._blobs = blobs
        self._directories = directories
        self._known = known
        self._calculations = SingleFlight(self._begin)
        self._room = asyncio.Semaphore(_MAX_RUNNING)

    async def calculate(self, node: Node) -> NarFacts:
        facts = await self._known.get(node)
        return facts or await self._calculations.result(node)

    def _begin(self, node: Node) -> asyncio.Task[NarFacts]:
        return asyncio.create_task(self._calculated(node))

    async def _calculated(self, node: Node) -> NarFacts:
        from tvix_store.operations.nars.calculate import calculate_nar  # not before it is needed: 8 ms of a command's start

        async with self._room:
            since = self._known.begin()
            facts = await calculate_nar(self._blobs, self._directories.tree(node))
        await self._known.put(node, facts, since)
        return facts
