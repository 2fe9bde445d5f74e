"""PackedDirectories: directories as records in packs, and as parts of tree objects."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Sequence

from tvix_store.backends.objectstore.packed.contents import Content, Kind, Sink
from tvix_store.backends.objectstore.packed.engine import Engine
from tvix_store.backends.objectstore.packed.trees import PackedTree, Trees
from tvix_store.errors import NotFoundError
from tvix_store.model.digest import Digest
from tvix_store.model.directory import Directory
from tvix_store.model.directory_graph import LeavesToRoot
from tvix_store.model.nodes import Node
from tvix_store.services.directories import parse

_CHECKED_HERE = 16 << 10
"""Bytes of a directory whose children are looked up on the event loop: 400 of them, in 1 ms."""
_AT_ONCE = 1000
"""Directories that are read at a time."""


class PackedDirectories:
    """The DirectoryService of a packed bucket; what is put goes into `sink`, by default the committer."""

    def __init__(self, engine: Engine, trees: Trees, sink: Sink | None = None) -> None:
        self._engine = engine
        self._trees = trees
        self._sink = sink or engine.committer

    async def get(self, digest: Digest) -> Directory | None:
        [place] = await self._engine.locate(Kind.DIRECTORY, [digest.raw])
        if place is None:
            return None
        [encoded] = await self._engine.contents(Kind.DIRECTORY, [digest.raw], [place])
        return Directory.stored(digest, encoded)

    async def get_all(self, digests: Sequence[Digest]) -> list[Directory]:
        """Some directories, in order.

        Raises:
            NotFoundError: one is not there.
            CorruptError: one is damaged.
        """
        keys = [digest.raw for digest in digests]
        places = await self._engine.locate_all(Kind.DIRECTORY, keys)
        encoded = await self._engine.contents(Kind.DIRECTORY, keys, places)
        return [Directory.stored(digest, each) for digest, each in zip(digests, encoded, strict=True)]

    async def get_recursive(self, digest: Digest) -> AsyncIterator[Directory]:
        if await self._engine.locate(Kind.DIRECTORY, [digest.raw]) == [None]:
            raise NotFoundError("directory", digest)
        tree = await self._trees.load(digest.raw)
        level = [digest]
        seen = {digest.raw}
        while level:
            following: list[Digest] = []
            for at in range(0, len(level), _AT_ONCE):
                some = level[at : at + _AT_ONCE]
                known = {each: found for each in some if tree is not None and (found := tree.directory(each)) is not None}
                others = [each for each in some if each not in known]
                known |= dict(zip(others, await self.get_all(others), strict=True)) if others else {}
                for directory in map(known.__getitem__, some):
                    await parse(directory)
                    yield directory
                    for _, child in directory.directories():
                        if child.digest.raw not in seen:
                            seen.add(child.digest.raw)
                            following.append(child.digest)
            level = following

    def tree(self, root: Node) -> PackedTree:
        return PackedTree(self, self._trees, root)

    async def missing(self, digests: Sequence[Digest]) -> set[Digest]:
        """The directories that are not there."""
        places = await self._engine.locate(Kind.DIRECTORY, [digest.raw for digest in digests], age=self._engine.settings.fresh)
        return {digest for digest, place in zip(digests, places, strict=True) if place is None}

    async def put(self, directories: AsyncIterable[Directory]) -> Digest:
        graph = LeavesToRoot()
        taken: dict[bytes, Directory] = {}
        with self._engine.graphs.graph() as held:
            async for directory in directories:
                if len(directory.encoded) > _CHECKED_HERE:
                    await asyncio.to_thread(graph.add, directory)
                else:
                    graph.add(directory)
                if directory.digest.raw not in taken:
                    taken[directory.digest.raw] = directory
                    held.add(directory)
            root = graph.finish()
            await self._sink.put_graph(root, await self._new(list(taken.values())), taken)
            return root

    async def put_some(self, directories: Sequence[Directory]) -> None:
        """As `Granular.put_directories`."""
        digests = {each.digest for each in directories}
        children = {child.digest for each in directories for _, child in each.directories()} - digests
        absent = await self.missing(list(children))
        known = {each.digest: each for each in await self.get_all([each for each in children if each not in absent])}
        graph = LeavesToRoot(known.get)
        for directory in directories:
            graph.add(directory)
        contents = await self._new(list({each.digest: each for each in directories}.values()))
        if contents:
            await self._sink.put(contents)

    async def _new(self, directories: Sequence[Directory]) -> list[Content]:
        """What is to be stored of directories."""
        contents = [Content(Kind.DIRECTORY, each.digest.raw, each.encoded, len(each.encoded)) for each in directories]
        unknown = await self._sink.unknown([each.name for each in contents])
        return [each for each in contents if each.name in unknown]
