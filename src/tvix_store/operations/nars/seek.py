"""Where in a NAR everything lies, from the directories alone; and ranges of it, rendered from there.

A directory is laid out when the sizes of all below it are known. These are remembered, so that finding a place in a large tree
takes no longer than reading the directories on the way to it.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from itertools import islice

from tvix_store.concurrency.cooperative import cooperatively
from tvix_store.model.digest import Digest
from tvix_store.model.nodes import DirectoryNode, FileNode
from tvix_store.nar import tokens
from tvix_store.operations.nars.render import render_steps
from tvix_store.operations.nars.size import Extent, leaf_size, measure
from tvix_store.operations.trees.walk import LEAVE, Step, check_root, read_contents
from tvix_store.services.blobs import BlobService
from tvix_store.services.directories import DirectoryTree, read_directory

KEPT_EXTENTS = 1 << 16
"""Directories whose extents are kept: 20 MB of objects. A Go toolchain has 1,700."""
KEPT_ENTRIES = 1 << 16
"""Entries of the directories that are kept laid out: another 30 MB."""


@dataclass(frozen=True, slots=True)
class _Layout:
    """The children of a directory, where each one begins, counted from where the directory does, and last, where they end."""

    steps: list[Step]
    starts: array[int]


@dataclass(slots=True)
class _Entered:
    """A directory on the way to a place: where it begins in the NAR, and the number of the child that comes next."""

    layout: _Layout
    begin: int
    next: int

    @property
    def at(self) -> int:
        """Where the next child begins; behind the last one, the end of the directory."""
        return self.begin + self.layout.starts[self.next]


class NarLayouts:
    """The NARs of the trees of a store. Keeps what it has found out, in bounded memory: share one between requests."""

    def __init__(self, blobs: BlobService) -> None:
        self._blobs = blobs
        self._extents: dict[Digest, Extent] = {}
        self._layouts: dict[Digest, _Layout] = {}
        self._laid_out = 0

    async def render_range(self, tree: DirectoryTree, start: int, stop: int) -> AsyncGenerator[bytes, None]:
        """The bytes from `start` up to `stop` of the NAR of the tree's root; a `stop` behind the end means the end.

        Contents that lie before or behind are not read, but for those of small files that are read at once with others.

        Raises:
            NotFoundError, InvalidError, CorruptError: as `render_nar`.
            ExhaustedError: as `nar_size`.
        """
        if start >= stop:
            return
        trail = await self._find(tree, start)
        at = trail[-1].at if trail else 0
        async for piece in render_steps(self._blobs, self._steps(tree, trail, stop), depth=len(trail)):
            size = piece.size if isinstance(piece, FileNode) else len(piece)
            first, last = max(start - at, 0), min(stop - at, size)
            at += size
            if first >= last:
                continue
            if not isinstance(piece, FileNode):
                yield piece[first:last]
                continue
            async for data in read_contents(self._blobs, piece, first, last):
                yield data

    async def _find(self, tree: DirectoryTree, wanted: int) -> list[_Entered]:
        """The way to the last step that begins at `wanted` or before it: the directories that are entered then."""
        root = tree.root
        if not isinstance(root, DirectoryNode):
            return []
        check_root(root, await read_directory(tree, root.digest))
        trail: list[_Entered] = []
        node, begin = root, len(tokens.MAGIC)
        while wanted >= begin + len(tokens.DIRECTORY_START):
            layout = await self._layout(tree, node)
            trail.append(_Entered(layout, begin, bisect_right(layout.starts, wanted - begin) - 1))
            if trail[-1].next == len(layout.steps):
                break
            name, child = layout.steps[trail[-1].next]
            begin = trail[-1].at + len(tokens.entry_start(name))
            if not isinstance(child, DirectoryNode) or wanted < begin + len(tokens.DIRECTORY_START):
                break
            trail[-1].next += 1
            node = child
        return trail

    async def _steps(self, tree: DirectoryTree, trail: list[_Entered], stop: int) -> AsyncIterator[Step]:
        """The steps from the end of `trail` on, as far as they begin before `stop`."""
        root = tree.root
        if not trail:
            yield Step(b"", root)
            if isinstance(root, DirectoryNode):
                trail.append(_Entered(await self._layout(tree, root), len(tokens.MAGIC), 0))
        while trail:
            entered = trail[-1]
            begin = entered.at
            if begin >= stop:
                return
            if entered.next == len(entered.layout.steps):
                trail.pop()
                yield LEAVE
                continue
            step = entered.layout.steps[entered.next]
            entered.next += 1
            yield step
            if isinstance(step.node, DirectoryNode):
                trail.append(_Entered(await self._layout(tree, step.node), begin + len(tokens.entry_start(step.name)), 0))

    async def _layout(self, tree: DirectoryTree, node: DirectoryNode) -> _Layout:
        layout = self._layouts.get(node.digest)
        if layout is not None:
            return layout
        directory = await read_directory(tree, node.digest)
        extents = self._extents
        if not all(child.digest in extents for _, child in directory.directories()):
            extents = await self._measured(tree.below(node), node.digest)
        at = len(tokens.DIRECTORY_START)
        starts = array("Q", [at])
        async for name, child in cooperatively(directory.entries.items()):
            at += tokens.entry_size(name)
            at += extents[child.digest].size if type(child) is DirectoryNode else leaf_size(child)  # type: ignore[arg-type]
            starts.append(at)
        layout = _Layout([Step(name, child) for name, child in directory.entries.items()], starts)
        self._keep(node.digest, layout)
        return layout

    async def _measured(self, tree: DirectoryTree, root: Digest) -> dict[Digest, Extent]:
        """What is known, and the extents of all directories of the tree."""
        # A copy: what others forget in the meantime would be measured as often as something refers to it.
        known = self._extents.copy()
        known.pop(root, None)
        await measure(tree, root, known)
        self._extents = dict(islice(known.items(), max(len(known) - KEPT_EXTENTS, 0), None))
        return known

    def _keep(self, digest: Digest, layout: _Layout) -> None:
        if digest in self._layouts:  # another request was as fast
            return
        self._layouts[digest] = layout
        self._laid_out += len(layout.starts)
        while self._laid_out > KEPT_ENTRIES:
            self._laid_out -= len(self._layouts.pop(next(iter(self._layouts))).starts)
