"""PackedStaging: content in packs that no commit names, until it is accepted.

A stage writes full packs without footers beside. One commit at the end names them all: only with it anything of the stage is there.
A small stage is that one commit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress

from tvix_store.backends.objectstore.packed.blobs import PackedBlobs
from tvix_store.backends.objectstore.packed.chunk_lists import ChunkListSegment
from tvix_store.backends.objectstore.packed.contents import Content, Kind, Name, NarRow, Place
from tvix_store.backends.objectstore.packed.directories import PackedDirectories
from tvix_store.backends.objectstore.packed.engine import Engine
from tvix_store.backends.objectstore.packed.nars import node_key
from tvix_store.backends.objectstore.packed.pack import MOST_ENTRIES, Footer, PackPart, data_key
from tvix_store.backends.objectstore.packed.tree_object import MOST_CHUNKS
from tvix_store.backends.objectstore.packed.trees import Trees
from tvix_store.errors import CorruptError, StoreError, UnsupportedError
from tvix_store.model.digest import Digest
from tvix_store.model.directory import Directory
from tvix_store.model.nodes import DirectoryNode, FileNode
from tvix_store.services.staging import NO_RECORDS, StagedNar

_UNDER_WAY = 2
"""Full packs that are being written, while the next one is filled."""
_SEEN = 500_000
"""Records of which it is remembered that they are staged. Beyond, some are stored twice."""

_CHECKED_AT_ONCE = 64
"""Records that are checked at a time: some MiB."""


class PackedStaging:
    """The Staging of a packed bucket whose records stand elsewhere."""

    def __init__(self, engine: Engine, trees: Trees) -> None:
        self._engine = engine
        self._trees = trees

    def begin(self, *, rechecks: bool = False) -> PackedStage:
        return PackedStage(self._engine, self._trees, rechecks=rechecks)


class PackedStage:
    """A Stage, and the sink of its services."""

    def __init__(self, engine: Engine, trees: Trees, *, rechecks: bool) -> None:
        self._engine = engine
        self._rechecks = rechecks
        self._since = engine.view.epoch
        self._refreshed: asyncio.Task[None] | None = None
        self.blobs = PackedBlobs(engine, trees, self)
        self.directories = PackedDirectories(engine, trees, self)
        self._seen: set[Name] = set()
        self._new_bytes = 0
        self._open, self._body, self._size = PackPart(""), list[bytes | memoryview](), 0
        """The chunks of the pack that is being filled."""
        self._full: list[PackPart] = []
        self._writing: list[asyncio.Task[None]] = []
        self._last: list[Content] = []
        """Lists and directories, which the commit itself holds."""
        self._graph: tuple[Digest, Mapping[bytes, Directory]] | None = None
        self._committing = False

    def new_bytes(self) -> int:
        return self._new_bytes

    async def unknown(self, names: Sequence[Name]) -> set[Name]:
        if self._refreshed is None:
            # What is known already need not be put: it is worth one listing.
            self._refreshed = asyncio.create_task(self._engine.refresher.refresh(self._engine.settings.fresh))
        await asyncio.shield(self._refreshed)
        new = set(names) - self._seen
        known = await asyncio.to_thread(self._engine.view.known, new)
        if self._rechecks and known:
            known -= await self._damaged(known)
        return new - known

    async def put(self, contents: Sequence[Content]) -> None:
        for content in contents:
            if content.name in self._seen:
                continue
            if len(self._seen) >= _SEEN:
                self._seen.clear()
            self._seen.add(content.name)
            if content.kind != Kind.CHUNK:
                self._last.append(content)
                continue
            self._new_bytes += content.length
            self._open.add(content)
            self._body.append(content.stored)
            self._size += len(content.stored)
            if self._size >= self._engine.settings.pack_size or len(self._open) >= MOST_ENTRIES // 2:
                self._begin_to_write()
        while len(pending := [each for each in self._writing if not each.done()]) > _UNDER_WAY:
            await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)

    async def put_graph(self, root: Digest, contents: Sequence[Content], graph: Mapping[bytes, Directory]) -> None:
        await self.put(contents)
        self._graph = root, graph

    async def accept(self, nar: StagedNar | None = None, records: Mapping[bytes, bytes] = NO_RECORDS) -> None:
        if records:
            raise UnsupportedError("the records of a packed bucket stand beside its content")
        await asyncio.gather(*self._writing)
        engine = self._engine
        # Lists before directories: with a directory, all that it needs is there.
        self._last.sort(key=lambda content: content.kind == Kind.DIRECTORY)
        own = self._open
        for content in self._last:
            own.add(content)
        body = [*self._body, *(content.stored for content in self._last)]
        rows: list[NarRow] = []
        if nar is not None and engine.view.epoch == self._since:
            row = NarRow(node_key(nar.node), nar.facts)
            rows = [] if engine.view.nar(row.node) == row.facts else [row]
        self._committing = True
        parts = list(self._full)
        while parts and sum(map(len, parts)) + len(own) > MOST_ENTRIES:
            await engine.committer.commit(Footer([parts.pop(0)]), ())
        key = ""
        if own.digests or parts or rows:
            key = await engine.committer.commit(Footer([*parts, own], rows), body)
        await self._write_tree(nar, key)

    async def _write_tree(self, nar: StagedNar | None, key: str) -> None:
        """Write the object of the staged tree, whose commit has this key."""
        root = None if self._graph is None else self._graph[0]
        graph = {} if self._graph is None else self._graph[1]
        match None if nar is None else nar.node:
            case DirectoryNode(digest=digest) if digest.raw not in graph:
                return  # it was not put here
            case DirectoryNode(digest=digest):
                root = digest
            case FileNode(digest=digest, size=size) if size:
                root, graph = digest, {}
        if root is None or len(self._seen) > MOST_CHUNKS:
            return
        entries = (entry for part in (*self._full, self._open) for entry in part.entries(key) if entry.kind == Kind.CHUNK)
        staged: dict[bytes, Place] = {entry.digest: entry.place for entry in entries}
        lists = {
            each.digest: [chunk for chunk, _ in ChunkListSegment.decode(each.stored, each.digest).entries]
            for each in self._last
            if each.kind == Kind.LIST and each.start == 0
        }
        await self._engine.committer.trees.put(root.raw, graph, staged, lists)

    def _begin_to_write(self) -> None:
        part, body = self._open, self._body
        part.key = data_key()
        self._full.append(part)
        self._writing.append(asyncio.create_task(self._write(part.key, body)))
        self._open, self._body, self._size = PackPart(""), [], 0

    async def _write(self, key: str, body: Sequence[bytes | memoryview]) -> None:
        await self._engine.bucket.put(key, await asyncio.to_thread(b"".join, body))

    async def _damaged(self, names: set[Name]) -> set[Name]:
        """Those of the records that the bucket has, but damaged. They are forgotten, and put again."""
        damaged: set[Name] = set()
        for kind in (Kind.CHUNK, Kind.DIRECTORY):
            some = [name for name in names if name[0] == kind]
            for at in range(0, len(some), _CHECKED_AT_ONCE):
                damaged |= await self._damaged_of(kind, some[at : at + _CHECKED_AT_ONCE])
        for name in names:
            if name[0] == Kind.LIST:
                try:
                    await self._engine.segment(Digest(name[1]), name[2])
                except CorruptError:
                    damaged.add(name)
        return damaged

    async def _damaged_of(self, kind: Kind, names: Sequence[Name]) -> set[Name]:
        digests = [digest for _, digest, _ in names]
        places = await self._engine.locate(kind, digests)
        here = [(name, place) for name, place in zip(names, places, strict=True) if place is not None]
        try:
            await self._engine.contents(kind, [name[1] for name, _ in here], [place for _, place in here])
        except CorruptError:
            if len(here) == 1:
                return set(names)
            halves = [await self._damaged_of(kind, some) for some in (names[: len(names) // 2], names[len(names) // 2 :])]
            return set().union(*halves)
        return set(names).difference(name for name, _ in here)

    async def close(self) -> None:
        tasks = [*self._writing, *([] if self._refreshed is None else [self._refreshed])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._full and not self._committing:  # a commit may be there, although nobody said so
            with suppress(StoreError):
                await self._engine.bucket.delete([part.key for part in self._full])
