"""Hints: where the contents of some trees lie, as the trees themselves say. See `tree_object.py`.

They are advice: what is read by a hint is verified like all that is read. They never make content count as stored.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field

from tvix_store.backends.objectstore.packed.chunk_lists import ChunkListSegment
from tvix_store.backends.objectstore.packed.contents import Kind, Place

_MOST = 200_000
"""Places that are kept: some 60 MB."""


@dataclass(frozen=True, slots=True)
class TreeHints:
    """Where the chunks of a tree's blobs lie, and the lists of those that were cut (each in one segment)."""

    chunks: Mapping[bytes, Place]
    lists: Mapping[bytes, ChunkListSegment] = field(default_factory=dict)


class Hints:
    """Those of the trees that were used last."""

    def __init__(self) -> None:
        self._trees: OrderedDict[bytes, TreeHints] = OrderedDict()
        self._wrong: set[bytes] = set()
        """Digests whose hints were wrong."""

    def add(self, root: bytes, hints: TreeHints) -> None:
        self._trees[root] = hints
        self._trees.move_to_end(root)
        while len(self._trees) > 1 and sum(len(each.chunks) for each in self._trees.values()) > _MOST:
            self._trees.popitem(last=False)

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
