"""LocalDirectories: directories as records in packs, as they are: digests do not compress."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator

from tvix_store.backends.local.contents import Content, Sink
from tvix_store.backends.local.engine import Engine
from tvix_store.backends.local.records import Kind
from tvix_store.errors import NotFoundError
from tvix_store.model.digest import Digest
from tvix_store.model.directory import Directory
from tvix_store.model.directory_graph import LeavesToRoot
from tvix_store.model.nodes import Node
from tvix_store.services.directories import parse
from tvix_store.services.stored_tree import StoredTree

_CHECKED_HERE = 16 << 10
"""Bytes of a directory whose children are looked up on the event loop: 400 of them, in 1 ms."""


class LocalDirectories:
    """The DirectoryService of a local store; what is put goes into `sink`, by default the committer."""

    def __init__(self, engine: Engine, sink: Sink | None = None) -> None:
        self._engine = engine
        self._sink = sink or engine.committer

    async def get(self, digest: Digest) -> Directory | None:
        finds = self._engine.index.finds
        place = self._engine.index.directory(digest.raw)
        if self._engine.index.finds != finds:
            await self._engine.take_back()
            place = self._engine.index.live_place(Kind.DIRECTORY, digest.raw)
        if place is None:
            return None
        stored = self._engine.reader.read_if_cached(place)
        if stored is None:
            return Directory.stored(digest, await self._engine.in_thread(self._engine.payload, digest.raw, place))
        return Directory.stored(digest, self._engine.payload(digest.raw, place, stored))

    async def get_recursive(self, digest: Digest) -> AsyncIterator[Directory]:
        waiting = deque([digest])
        seen = {digest.raw}
        while waiting:
            wanted = waiting.popleft()
            directory = await self.get(wanted)
            if directory is None:
                raise NotFoundError("directory", wanted)
            await parse(directory)  # of a large one, its child directories alone would take long
            yield directory
            for _, child in directory.directories():
                if child.digest.raw not in seen:
                    seen.add(child.digest.raw)
                    waiting.append(child.digest)

    def tree(self, root: Node) -> StoredTree:
        return StoredTree(self, root)

    async def put(self, directories: AsyncIterable[Directory]) -> Digest:
        graph = LeavesToRoot()
        contents: dict[bytes, Content] = {}
        with self._engine.graphs.graph() as held:
            async for directory in directories:
                if len(directory.encoded) > _CHECKED_HERE:
                    await self._engine.in_thread(graph.add, directory)
                else:
                    graph.add(directory)
                if directory.digest.raw not in contents:
                    contents[directory.digest.raw] = Content(Kind.DIRECTORY, directory.digest.raw, directory.encoded)
                    held.add(directory)
            root = graph.finish()
            unknown = list(contents.values())
            if not self._sink.holds(held.size):
                unknown = await self._engine.in_thread(self._sink.unknown, unknown)
            if unknown:
                await asyncio.wrap_future(self._sink.put_contents(unknown))
            return root
