"""Exporting a tree with a crew: directories and symlinks are made here, in the order of the walk, files by the members.

A share is some directories' files, or a part of a large file. It is asked for when the directories that it needs are there.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from tvix_store.model.digest import Digest
from tvix_store.model.nodes import DirectoryNode, FileNode
from tvix_store.operations.closure import Closure
from tvix_store.operations.crew import Crew
from tvix_store.operations.draft import Draft
from tvix_store.operations.fetch_tree import Step, read_contents, walk_tree, wrong_size
from tvix_store.operations.open_directory import OpenDirectory
from tvix_store.operations.tree_writer import TreeWriter, new_file, write_all
from tvix_store.services.blobs import SMALL_BLOB, BlobService
from tvix_store.services.store import Store

_SHARE_BYTES = 2 << 20
_SHARE_FILES = 256
_SHARE_STEPS = 4096
_LARGE = 8 << 20
"""Bytes of a file that a member writes at a time: what it is at cannot be interrupted, and a large file is for all of them."""
_ASKED = 3
"""Shares that a member may be asked for at a time."""

Place = tuple[bytes, ...]
"""The names of the directories from the root to a directory."""


class _File(NamedTuple):
    """What is sent of a file: sending nodes takes ten times as long."""

    name: bytes
    digest: bytes
    size: int
    executable: bool

    @property
    def node(self) -> FileNode:
        return FileNode(Digest(self.digest), self.size, self.executable)


Folder = tuple[Place, list[_File]]


@dataclass(slots=True)
class _Share:
    """Some steps of a walk, and the files among them by their directories; a `large` file, in a directory, may follow."""

    steps: list[Step] = field(default_factory=list)
    folders: list[Folder] = field(default_factory=list)
    files: int = 0
    size: int = 0
    large: tuple[Place, _File] | None = None


async def export_shares(crew: Crew, closure: Closure, draft: Draft, writer: TreeWriter, count: Callable[[int, int], None]) -> None:
    """Write the tree that the closure's root is, a directory, to `draft` by way of `writer` and `crew`.

    Raises:
        Exception: as `export_tree`. Nothing is written any more then.
    """
    asked: set[asyncio.Task[None]] = set()

    async def done(work: Coroutine[None, None, None], files: int, size: int) -> None:
        with draft.errors():
            await work
        count(files, size)

    async def ask(work: Coroutine[None, None, None], files: int, size: int) -> None:
        asked.add(asyncio.create_task(done(work, files, size)))
        await until_left(_ASKED * crew.size)

    async def until_left(most: int) -> None:
        # Not by awaiting the tasks, which would be cancelled with us, while the members go on writing.
        while len(asked) > most:
            ended, _ = await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
            asked.difference_update(ended)
            _raise_first(ended)

    try:
        async for share in _shares(closure):
            await draft.run(writer.write_frame, share.steps)
            if share.files:
                await ask(crew.run(write_folders, draft.path, share.folders), share.files, share.size)
            if share.large:
                path, file = share.large
                await draft.run(writer.make_empty, file.name, file.executable)
                for start in range(0, file.size, _LARGE):
                    stop = min(start + _LARGE, file.size)
                    await ask(crew.run(write_range, draft.path, path, file, start, stop), int(stop == file.size), stop - start)
        await until_left(0)
    finally:
        # The draft may only be removed when nobody writes to it.
        if asked:
            ended, _ = await asyncio.wait(asked)
            with suppress(Exception):  # one was raised already
                _raise_first(ended)


def _raise_first(ended: set[asyncio.Task[None]]) -> None:
    """Raise what one of the tasks has raised, if any has; all are asked, or Python tells of those that were not."""
    errors = [error for task in ended if not task.cancelled() and (error := task.exception()) is not None]
    if errors:
        raise errors[0]


async def _shares(closure: Closure) -> AsyncIterator[_Share]:
    share = _Share()
    path: list[bytes] = []
    folder: list[_File] | None = None
    """The files of the current directory in this share."""
    async for step in walk_tree(closure):
        name, node = step
        if type(node) is FileNode:
            file = _File(name, node.digest.raw, node.size, node.executable)
            if node.size > _LARGE:
                share.large = tuple(path[1:]), file
            else:
                if folder is None:
                    folder = []
                    share.folders.append((tuple(path[1:]), folder))
                folder.append(file)
                share.files += 1
                share.size += node.size
        else:
            share.steps.append(step)
            folder = None
            if type(node) is DirectoryNode:
                path.append(name)
            elif node is None:
                path.pop()
        if share.size >= _SHARE_BYTES or share.files >= _SHARE_FILES or len(share.steps) >= _SHARE_STEPS or share.large:
            yield share
            share, folder = _Share(), None
    yield share


async def write_folders(store: Store, root: Path, folders: Sequence[Folder]) -> None:
    """Write the files of some directories below `root`; a member's share.

    Raises:
        OSError: the disk does not let us.
        Exception: as `fetch_tree`.
    """
    small = [file for _, files in folders for file in files if file.size <= SMALL_BLOB]
    contents = iter(await store.blobs.get_many([Digest(file.digest) for file in small]))
    with OpenDirectory(root) as place:
        at: Place = ()
        for path, files in folders:
            _move(place, at, path)
            at = path
            for file in files:
                if file.size <= SMALL_BLOB:
                    content = next(contents)
                    if len(content) != file.size:
                        raise wrong_size(file.node)
                    fd = new_file(file.name, place, file.executable)
                    try:
                        write_all(fd, content)
                    finally:
                        os.close(fd)
                else:
                    os.close(new_file(file.name, place, file.executable))
                    await _fill(store.blobs, place, file, 0, file.size)


async def write_range(store: Store, root: Path, path: Place, file: _File, start: int, stop: int) -> None:
    """Write the bytes from `start` to `stop` of a file that is there; a member's share.

    Raises:
        Exception: as `write_folders`.
    """
    with OpenDirectory(root) as place:
        _move(place, (), path)
        await _fill(store.blobs, place, file, start, stop)


async def _fill(blobs: BlobService, place: OpenDirectory, file: _File, start: int, stop: int) -> None:
    fd = os.open(file.name, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=place.fd)
    try:
        os.lseek(fd, start, os.SEEK_SET)
        async for piece in read_contents(blobs, file.node, start, stop):
            write_all(fd, piece)
    finally:
        os.close(fd)


def _move(place: OpenDirectory, at: Place, to: Place) -> None:
    """From one directory below the root to another."""
    common = next((n for n, (one, other) in enumerate(zip(at, to, strict=False)) if one != other), min(len(at), len(to)))
    for _ in at[common:]:
        place.leave()
    for name in to[common:]:
        place.enter(name)
