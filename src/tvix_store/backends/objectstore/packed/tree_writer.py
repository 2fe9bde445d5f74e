"""TreeWriter: writes the objects of trees whose content was put. They are advice: a tree without one is read by the view."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Mapping, Sequence

from tvix_store.backends.objectstore.bucket import Bucket
from tvix_store.backends.objectstore.packed.chunk_lists import ChunkListSegment
from tvix_store.backends.objectstore.packed.contents import Kind, Place
from tvix_store.backends.objectstore.packed.pack_reader import PackReader
from tvix_store.backends.objectstore.packed.tree_object import LARGEST, MOST_CHUNKS, TreeObject, tree_key
from tvix_store.backends.objectstore.packed.view import View
from tvix_store.errors import CorruptError, StoreError
from tvix_store.model.directory import Directory
from tvix_store.model.nodes import DirectoryNode, FileNode

_log = logging.getLogger(__name__)
_NONE: Mapping[bytes, Place] = {}
_NO_LISTS: Mapping[bytes, Sequence[bytes]] = {}


class TreeWriter:
    """Writes tree objects of one bucket."""

    def __init__(self, bucket: Bucket, view: View, reader: PackReader) -> None:
        self._bucket = bucket
        self._view = view
        self._reader = reader

    async def put(
        self,
        root: bytes,
        graph: Mapping[bytes, Directory],
        staged: Mapping[bytes, Place] = _NONE,
        lists: Mapping[bytes, Sequence[bytes]] = _NO_LISTS,
    ) -> None:
        """Write the object of a tree: `root` is the digest of a directory of the graph, or of a file alone.

        Of content that is not known yet, it is `staged` where chunks will lie, and `lists` has the chunks of cut blobs. That there
        is no object, because writing it failed or it would be too large, harms nobody.
        """
        try:
            tree = await self.make(root, graph, staged, lists)
        except StoreError as error:
            _log.info("no tree object is made: %s", error)
            return
        if tree is not None:
            await self.write(root, tree)

    async def write(self, root: bytes, tree: TreeObject) -> None:
        """As `put`, of an object that is made."""
        try:
            await self._bucket.put(tree_key(root), await asyncio.to_thread(tree.encode))
        except StoreError as error:
            _log.info("no tree object is written: %s", error)

    async def make(
        self,
        root: bytes,
        graph: Mapping[bytes, Directory],
        staged: Mapping[bytes, Place] = _NONE,
        lists: Mapping[bytes, Sequence[bytes]] = _NO_LISTS,
    ) -> TreeObject | None:
        """The object of a tree, as `put` writes it; None where it would be too large, or content is missing."""
        if sum(len(each.encoded) for each in graph.values()) > LARGEST // 2:
            return None
        blobs = list(await asyncio.to_thread(lambda: dict.fromkeys(_files(root, graph)))) if graph else [root]
        all_lists = {**await self._known_lists([each for each in blobs if each not in staged and each not in lists]), **lists}
        chunks = list(dict.fromkeys(chunk for blob in blobs for chunk in all_lists.get(blob, (blob,))))
        if len(chunks) > MOST_CHUNKS:
            return None
        known = await asyncio.to_thread(self._view.places, Kind.CHUNK, [each for each in chunks if each not in staged])
        places = dict(zip([each for each in chunks if each not in staged], known, strict=True))
        found = {each: place for each in chunks if (place := staged.get(each) or places.get(each)) is not None}
        whole = {blob: all_lists[blob] for blob in blobs if blob in all_lists and all(each in found for each in all_lists[blob])}
        if any(blob not in found and blob not in whole for blob in blobs):
            return None  # some of it was not put yet
        reached = [graph[root], *(each for digest, each in graph.items() if digest != root)] if graph else []
        return TreeObject({each.digest.raw: each.encoded for each in reached}, found, whole)

    async def _known_lists(self, blobs: Sequence[bytes]) -> dict[bytes, list[bytes]]:
        """The chunks of those of the blobs that were cut. Their lists are read, those of one segment."""

        def found() -> dict[bytes, Place]:
            is_chunk = self._view.places(Kind.CHUNK, blobs)
            cut = [blob for blob, place in zip(blobs, is_chunk, strict=True) if place is None]
            return {blob: segment.place for blob in cut if (segment := self._view.segment(blob, 0)) is not None}

        places = await asyncio.to_thread(found)
        stored = await self._reader.read(list(places.values()))
        lists: dict[bytes, list[bytes]] = {}
        for blob, data in zip(places, stored, strict=True):
            try:
                segment = None if data is None else ChunkListSegment.decode(data, blob)
            except CorruptError:
                continue
            if segment is not None and segment.end == segment.size:
                lists[blob] = [chunk for chunk, _ in segment.entries]
        return lists


def _files(root: bytes, graph: Mapping[bytes, Directory]) -> Iterator[bytes]:
    """The digests of the files of a tree in the order of its NAR. A directory that was there before is not entered again."""
    seen = {root}
    entered = [iter(graph[root].entries.values())]
    while entered:
        for node in entered[-1]:
            if type(node) is FileNode:
                yield node.digest.raw
            elif type(node) is DirectoryNode and node.digest.raw not in seen and node.digest.raw in graph:
                seen.add(node.digest.raw)
                entered.append(iter(graph[node.digest.raw].entries.values()))
                break
        else:
            entered.pop()
