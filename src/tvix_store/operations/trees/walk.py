"""A node and all below it with their contents, in the order of a NAR. Every export is made from such a walk.

Small files come in batches, one of which is fetched while the one before it is used.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from typing import NamedTuple

from tvix_store.concurrency.cooperative import STEPS, Yielder
from tvix_store.errors import ExhaustedError, InvalidError
from tvix_store.model.directory import Directory
from tvix_store.model.nodes import DirectoryNode, FileNode, Node
from tvix_store.services.blobs import SMALL_BLOB, BlobService, get_all
from tvix_store.services.directories import DirectoryTree, read_directory
from tvix_store.services.read_ahead import READ_AHEAD

_BATCH_BYTES = 2 << 20
_SMALL_BATCH = 256 << 10
"""The same where many are read at a time, and none ahead."""
_BATCH_FILES = 256
"""Bounds memory where nodes lie about sizes: no blob of a batch is larger than SMALL_BLOB."""
_BATCH_STEPS = 4096
_AHEAD = 2
"""Batches that are fetched while the one before them is used."""


class Step(NamedTuple):
    """A node that was come to, with its name (the root has none); `node` None leaves the directory entered last."""

    name: bytes
    node: Node | None


LEAVE = Step(b"", None)
"""Leaves a directory."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Some steps, the contents of the files among them, and a file that follows, too large to come in a batch."""

    steps: list[Step]
    contents: list[bytes]
    large: tuple[bytes, FileNode] | None


async def fetch_tree(blobs: BlobService, tree: DirectoryTree) -> AsyncIterator[Batch]:
    """Everything that the tree's root reaches, in batches.

    A directory's step comes before those of its children, which are sorted by name; a step with no node closes it.

    Raises:
        NotFoundError: a blob or a directory is not in the store.
        InvalidError: a file's size, or the root's, is not what its node states.
        CorruptError: stored content does not match its digest.
    """
    async for batch in fetch_steps(blobs, walk_tree(tree)):
        yield batch


async def fetch_steps(blobs: BlobService, steps: AsyncIterator[Step]) -> AsyncIterator[Batch]:
    """Some steps of a tree, such as those from its middle on, in batches.

    Raises:
        NotFoundError, InvalidError, CorruptError: as `fetch_tree`, of blobs; and the errors of `steps`.
    """
    ahead: deque[tuple[_Plan, asyncio.Task[list[bytes]]]] = deque()
    with READ_AHEAD.room((_AHEAD + 1) * _BATCH_BYTES) as has_room:
        try:
            async for plan in _plan(steps, _BATCH_BYTES if has_room else _SMALL_BATCH):
                ahead.append((plan, asyncio.create_task(_fetch(blobs, plan.files))))
                if len(ahead) > (_AHEAD if has_room else 0):
                    yield await _fetched(*ahead.popleft())
            while ahead:
                yield await _fetched(*ahead.popleft())
        finally:
            for _, task in ahead:
                task.cancel()
            await asyncio.gather(*(task for _, task in ahead), return_exceptions=True)


async def _fetched(plan: _Plan, contents: asyncio.Task[list[bytes]]) -> Batch:
    return Batch(plan.steps, await contents, plan.large)


async def read_contents(blobs: BlobService, node: FileNode, start: int = 0, stop: int | None = None) -> AsyncGenerator[bytes, None]:
    """The contents of a file of any size, from `start` up to `stop` (at most its size), in the pieces of `BlobService.read`.

    Raises:
        InvalidError: the size of the blob turns out not to be the node's.
        NotFoundError, CorruptError: as `BlobService.read`.
    """
    # A read up to the end has no limit, so that a blob that is too long is noticed.
    left = (node.size if stop is None else stop) - start
    async for piece in blobs.read(node.digest, start, None if stop == node.size else stop):
        left -= len(piece)
        if left < 0:
            break
        yield piece
    if left:
        raise wrong_size(node)


@dataclass(frozen=True, slots=True)
class _Plan:
    steps: list[Step]
    files: list[FileNode]
    large: tuple[bytes, FileNode] | None = None


async def _plan(walk: AsyncIterator[Step], most: int) -> AsyncIterator[_Plan]:
    """The steps, cut into batches of about `most` bytes; `files` are those to fetch for a batch."""
    steps: list[Step] = []
    files: list[FileNode] = []
    size = 0
    async for step in walk:
        name, node = step
        if type(node) is FileNode and node.size > SMALL_BLOB:
            yield _Plan(steps, files, (name, node))
            steps, files, size = [], [], 0
            continue
        steps.append(step)
        if type(node) is FileNode:
            files.append(node)
            size += node.size
        if size >= most or len(files) >= _BATCH_FILES or len(steps) >= _BATCH_STEPS:
            yield _Plan(steps, files)
            steps, files, size = [], [], 0
    yield _Plan(steps, files)


async def walk_tree(tree: DirectoryTree) -> AsyncIterator[Step]:
    """The steps alone, without contents.

    Raises:
        NotFoundError, InvalidError: as `fetch_tree`, of directories.
    """
    root = tree.root
    yield Step(b"", root)
    if not isinstance(root, DirectoryNode):
        return
    tree.expect_all()
    directory = await read_directory(tree, root.digest)
    check_root(root, directory)
    # A stack of our own: trees may be nested deeper than Python recurses.
    entered = [iter(directory.entries.items())]
    taken = 0
    yielder = Yielder()
    while entered:
        for name, node in entered[-1]:
            yield Step(name, node)
            taken += 1
            if taken % STEPS == 0:
                await asyncio.sleep(0)
            if type(node) is DirectoryNode:
                await yielder.step()
                entered.append(iter((await read_directory(tree, node.digest)).entries.items()))
                break
        else:
            entered.pop()
            yield LEAVE


def check_root(root: DirectoryNode, directory: Directory) -> None:
    """Raise InvalidError where the root of a tree states a wrong size. Below it, they were checked when they were put."""
    if not directory.may_have_size(root.size):
        raise InvalidError(f"the node of directory {root.digest} states size {root.size}, but it is {directory.size()}")


async def _fetch(blobs: BlobService, files: list[FileNode]) -> list[bytes]:
    if not files:
        return []
    try:
        contents = await get_all(blobs, [file.digest for file in files])
    except ExhaustedError:
        for file in files:
            async for _ in blobs.read(file.digest, file.size, file.size + 1):
                raise wrong_size(file) from None
        raise
    for file, content in zip(files, contents, strict=True):
        if len(content) != file.size:
            raise wrong_size(file)
    return contents


def wrong_size(file: FileNode) -> InvalidError:
    return InvalidError(f"blob {file.digest} is not {file.size} bytes long, as the node of a file states")
