"""Trees: the tree objects of a bucket, read once and kept for a while; and the handle of a tree."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from time import monotonic

from tvix_store.backends.objectstore.packed.chunk_lists import ChunkListSegment
from tvix_store.backends.objectstore.packed.engine import Engine
from tvix_store.backends.objectstore.packed.hints import TreeHints
from tvix_store.backends.objectstore.packed.tree_object import LARGEST, TreeObject, tree_key
from tvix_store.concurrency.single_flight import SingleFlight
from tvix_store.errors import CorruptError
from tvix_store.model.digest import Digest
from tvix_store.model.directory import Directory
from tvix_store.model.nodes import DirectoryNode, Node
from tvix_store.services.directories import DirectoryService
from tvix_store.services.stored_tree import StoredTree

_KEPT = 64 << 20
"""Bytes of trees that are kept, with
_OF_TREE, _OF_CHUNK: bytes of memory that a tree and each of its chunks take."""
_OF_TREE, _OF_CHUNK = 2000, 350

_MADE = 4 << 20
"""Bytes of the directories of the largest tree for which an object is made as it is read."""
_ABSENT = 5.0
"""Seconds for which it is remembered that a tree has no object, and
_REMEMBERED: how many trees these are."""
_REMEMBERED = 10_000

_log = logging.getLogger(__name__)


class Trees:
    """Reads tree objects. What they say of places becomes hints."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._kept: OrderedDict[bytes, TreeObject] = OrderedDict()
        self._absent: dict[bytes, float] = {}
        """Roots that have no object, and when that was seen."""
        self._size = 0
        self._loading: SingleFlight[bytes, TreeObject | None] = SingleFlight(lambda root: asyncio.ensure_future(self._load(root)))

    async def load(self, root: bytes) -> TreeObject | None:
        """The object of the tree with this root; None where there is none that can be read."""
        kept = self._kept.get(root)
        if kept is not None:
            self._kept.move_to_end(root)
            return kept
        if monotonic() - self._absent.get(root, float("-inf")) < _ABSENT:
            return None
        return await self._loading.result(root)

    async def make(self, root: Digest, directories: DirectoryService) -> TreeObject | None:
        """An object for a tree that has none, such as one that was put part by part. It is written beside, for other front ends.

        None where the tree is too large.

        Raises:
            NotFoundError, CorruptError: as `DirectoryService.get_recursive`.
        """
        graph: dict[bytes, Directory] = {}
        size = 0
        async for directory in directories.get_recursive(root):
            graph[directory.digest.raw] = directory
            size += len(directory.encoded)
            if size > _MADE:
                return None
        writer = self._engine.committer.trees
        tree = await writer.make(root.raw, graph)
        if tree is not None:
            self._keep(root.raw, tree)
            self._engine.begin(writer.write(root.raw, tree))
        return tree

    def announce(self, root: bytes, tree: TreeObject) -> None:
        """Expect that the contents of a tree are read in their order."""
        self._engine.reader.announce(root, list(tree.chunks.values()))

    async def _load(self, root: bytes) -> TreeObject | None:
        key = tree_key(root)
        try:
            found = await self._engine.bucket.get(key)
            if found is None or len(found.data) > LARGEST:
                self._absent[root] = monotonic()
                if len(self._absent) > _REMEMBERED:
                    del self._absent[next(iter(self._absent))]
                return None
            tree = await asyncio.to_thread(TreeObject.decode, found.data, f"{self._engine.bucket.name}/{key}")
        except CorruptError as error:
            _log.warning("a tree object is not used: %s", error)
            return None
        self._keep(root, tree)
        return tree

    def _keep(self, root: bytes, tree: TreeObject) -> None:
        former = self._kept.pop(root, None)
        self._kept[root] = tree
        self._size += _cost(tree) - (0 if former is None else _cost(former))
        while len(self._kept) > 1 and self._size > _KEPT:
            _, dropped = self._kept.popitem(last=False)
            self._size -= _cost(dropped)
        lists = {
            blob: ChunkListSegment.whole((chunk, tree.chunks[chunk].length) for chunk in chunks)
            for blob, chunks in tree.lists.items()
        }
        self._engine.hints.add(root, TreeHints(tree.chunks, lists))


def _cost(tree: TreeObject) -> int:
    """Bytes of memory. A file that is a store path has no directories, and may have many chunks."""
    return _OF_TREE + sum(map(len, tree.directories.values())) + _OF_CHUNK * len(tree.chunks)


class PackedTree:
    """The DirectoryTree of a packed bucket: from the object of the tree, where there is one."""

    def __init__(self, directories: DirectoryService, trees: Trees, root: Node, top: Node | None = None) -> None:
        self.root = root
        self._directories = directories
        self._trees = trees
        self._top = top or root
        """The root of the whole tree, which has the object."""
        self._stored = StoredTree(directories, root)
        self._object: TreeObject | None = None
        self._asked = False
        self._expects_all = False

    def expect_all(self) -> None:
        self._expects_all = True

    async def get(self, digest: Digest) -> Directory:
        if not self._asked and isinstance(self._top, DirectoryNode):
            self._object = await self._trees.load(self._top.digest.raw)
            if self._object is None and self._expects_all and self._top is self.root:
                self._object = await self._trees.make(self._top.digest, self._directories)
            self._asked = True
            if self._expects_all and self._object is not None:
                self._trees.announce(self._top.digest.raw, self._object)
            elif self._expects_all:
                self._stored.expect_all()
        found = None if self._object is None else self._object.directory(digest)
        return await self._stored.get(digest) if found is None else found

    def below(self, node: Node) -> PackedTree:
        return PackedTree(self._directories, self._trees, node, self._top)
