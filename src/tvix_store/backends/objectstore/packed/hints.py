"""Hints: where the contents of some trees lie, as the trees themselves say. See `tree_object.py`.

They are advice: what is read by a hint is verified like all that is read. They never make content count as stored.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field

from tvix_store.backends.objectstore.packed.chunk_lists import ChunkListSegment
from tvix_store.backends.objectstore.packed.contents import Kind, Place

_MOST, _MOST_TREES = 200_000, 100
"""Places that are kept: some 60 MB. All trees are looked at for a digest that none has."""


@dataclass(frozen=True, slots=True)
class TreeHints:
    """Where the chunks of a tree's blobs lie, and the lists of those that were cut (each in one segment)."""

    chunks: Mapping[bytes, Place]
    lists: Mapping[bytes, ChunkListSegment] = field(default_factory=dict)


class Hints:
    """Those of the trees that were used last."""

    def __init__(self) -> None:
        self._trees: OrderedDict[bytes, TreeHints] = OrderedDict()
        self._places = 0
        self._wrong: set[bytes] = set()
        """Digests whose hints were wrong."""

    def add(self, root: bytes, hints: TreeHints) -> None:
        former = self._trees.pop(root, None)
        self._places -= 0 if former is None else len(former.chunks)
        self._trees[root] = hints
        self._places += len(hints.chunks)
        while len(self._trees) > 1 and (self._places > _MOST or len(self._trees) > _MOST_TREES):
            _, dropped = self._trees.popitem(last=False)
            self._places -= len(dropped.chunks)

    def place(self, kind: Kind, digest: bytes) -> Place | None:
        if kind != Kind.CHUNK or digest in self._wrong:
            return None
        for tree in reversed(self._trees.values()):
            found = tree.chunks.get(digest)
            if found is not None:
                return found
        return None

    def segment(self, blob: bytes) -> ChunkListSegment | None:
        """The list of a blob, which is all in one segment."""
        if blob in self._wrong:
            return None
        return next((tree.lists[blob] for tree in reversed(self._trees.values()) if blob in tree.lists), None)

    def drop(self, digest: bytes) -> None:
        """Do not believe what was said of this content."""
        if any(digest in tree.chunks or digest in tree.lists for tree in self._trees.values()):
            self._wrong.add(digest)
