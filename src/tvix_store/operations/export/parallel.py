"""Exporting a tree with a pool. The parent makes directories and symlinks, in the order of the walk; the workers write files.

A share is the files of some directories, or a part of a large file. It is handed out when its directories exist. The worker that
writes a file also parses its node, since parsing the nodes takes as long as making the directories.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from tvix_store.model.nodes import DirectoryNode, FileNode, decode_file
from tvix_store.operations.export.atomic_target import AtomicTarget
from tvix_store.operations.export.tree_writer import TreeWriter, new_file, write_all
from tvix_store.operations.export.worker_pool import WorkerPool
from tvix_store.operations.trees.open_directory import OpenDirectory
from tvix_store.operations.trees.walk import LEAVE, Step, check_root, read_contents, wrong_size
from tvix_store.services.blobs import SMALL_BLOB, BlobService, get_all
from tvix_store.services.directories import DirectoryTree
from tvix_store.services.store import Store

_SHARE_FILES = 128
_SHARE_STEPS = 4096
_SHARE_BYTES = 8 << 20
"""Bytes after which a worker gives back the rest of a share. Its work cannot be interrupted, and other workers may be idle."""
_LARGE = 8 << 20
"""Bytes of a file that a worker writes at a time: a large file is for all of them."""
_BATCH_BYTES = 2 << 20
_ASKED = 3
"""Shares that a worker may be asked for at a time."""

Place = tuple[bytes, ...]
"""The names of the directories from the root to a directory."""


class Folder(NamedTuple):
    """Files of a directory, by their encoded nodes: sending the nodes themselves takes ten times as long."""

    place: Place
    files: list[bytes]


@dataclass(slots=True)
class _Share:
    """Some steps of a walk without its files, and these by their directories."""

    steps: list[Step] = field(default_factory=list)
    folders: list[Folder] = field(default_factory=list)
    files: int = 0


class Written(NamedTuple):
    """The result of a share: the number of files and bytes written, and the files that are left."""

    files: int
    size: int
    left: list[Folder]


class _File(NamedTuple):
    place: Place
    name: bytes
    node: FileNode


async def export_parallel(
    pool: WorkerPool, tree: DirectoryTree, target: AtomicTarget, writer: TreeWriter, count: Callable[[int, int], None]
) -> None:
    """Write the tree, whose root is a directory, to `target` by way of `writer` and `pool`.

    Raises:
        Exception: as `export_tree`. Nothing is written any more then.
    """
    asked: set[asyncio.Task[None]] = set()
    left: deque[Folder] = deque()

    async def write(folders: Sequence[Folder]) -> None:
        with target.errors():
            written = await pool.run(write_folders, target.path, folders)
        left.extend(written.left)
        count(written.files, written.size)

    async def fill(place: Place, file: bytes, start: int, stop: int, *, is_last: bool) -> None:
        with target.errors():
            await pool.run(write_range, target.path, place, file, start, stop)
        count(int(is_last), stop - start)

    async def ask(work: Coroutine[None, None, None]) -> None:
        asked.add(asyncio.create_task(work))
        await until_asked(_ASKED * pool.size - 1)

    async def until_asked(most: int) -> None:
        # Not by awaiting the tasks, which would be cancelled with us, while the workers go on writing.
        while len(asked) > most:
            ended, _ = await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
            asked.difference_update(ended)
            _raise_first(ended)

    async def ask_for_what_is_left() -> None:
        while left:
            place, files = left.popleft()
            nodes = [decode_file(file)[1] for file in files]
            small = [file for file, node in zip(files, nodes, strict=True) if node.size <= _LARGE]
            if small:
                await ask(write([Folder(place, small)]))
            for file, node in zip(files, nodes, strict=True):
                if node.size > _LARGE:
                    await target.run(make_empty, target.path, place, file)
                    for start in range(0, node.size, _LARGE):
                        stop = min(start + _LARGE, node.size)
                        await ask(fill(place, file, start, stop, is_last=stop == node.size))

    try:
        async for share in _shares(tree):
            await target.run(writer.write, share.steps, ())
            if share.folders:
                await ask(write(share.folders))
            await ask_for_what_is_left()
        while asked or left:
            await until_asked(max(len(asked) - 1, 0))
            await ask_for_what_is_left()
    finally:
        # The target may only be removed when nobody writes to it.
        if asked:
            ended, _ = await asyncio.wait(asked)
            with suppress(Exception):  # one was raised already
                _raise_first(ended)


def _raise_first(ended: set[asyncio.Task[None]]) -> None:
    """Raise the error of one of the tasks, if there is one. All tasks are asked, or Python would report the others."""
    errors = [error for task in ended if not task.cancelled() and (error := task.exception()) is not None]
    if errors:
        raise errors[0]


async def _shares(tree: DirectoryTree) -> AsyncIterator[_Share]:
    share = _Share()
    async for steps, folder in _walk(tree):
        share.steps += steps
        for start in range(0, len(folder.files), _SHARE_FILES):
            some = folder.files[start : start + _SHARE_FILES]
            share.folders.append(Folder(folder.place, some))
            share.files += len(some)
            if share.files >= _SHARE_FILES:
                yield share
                share = _Share()
        if len(share.steps) >= _SHARE_STEPS:
            yield share
            share = _Share()
    yield share


async def _walk(tree: DirectoryTree) -> AsyncIterator[tuple[list[Step], Folder]]:
    """The steps from one directory to the next, and through the latter's symlinks; and its files."""
    root = tree.root
    assert isinstance(root, DirectoryNode)
    tree.expect_all()
    entered = [iter([(b"", root)])]
    path: list[bytes] = []
    steps: list[Step] = []
    while entered:
        child = next(entered[-1], None)
        if child is None:
            entered.pop()
            if entered:
                path.pop()
                steps.append(LEAVE)
            continue
        name, node = child
        directory = await tree.get(node.digest)
        if node is root:
            check_root(node, directory)
        path.append(name)
        steps.append(Step(name, node))
        steps += [Step(*link) for link in directory.symlinks()]
        yield steps, Folder(tuple(path[1:]), directory.encoded_files())
        steps = []
        entered.append(directory.directories())
    yield steps, Folder((), [])


async def write_folders(store: Store, root: Path, folders: Sequence[Folder]) -> Written:
    """Write the files of some directories below `root`; a worker's share.

    Raises:
        OSError: the disk does not let us.
        Exception: as `fetch_tree`.
    """
    files, left = _divided(folders)
    at: Place = ()
    with OpenDirectory(root) as directory:
        for batch in _batches(files):
            small = [node.digest for _, _, node in batch if node.size <= SMALL_BLOB]
            contents = iter(await get_all(store.blobs, small))
            for place, name, node in batch:
                if place is not at:
                    _move(directory, at, place)
                    at = place
                fd = new_file(name, directory, node.executable)
                try:
                    if node.size > SMALL_BLOB:
                        await _fill(fd, store.blobs, node, 0, node.size)
                    elif len(content := next(contents)) == node.size:
                        write_all(fd, content)
                    else:
                        raise wrong_size(node)
                finally:
                    os.close(fd)
    return Written(len(files), sum(node.size for _, _, node in files), left)


def _divided(folders: Sequence[Folder]) -> tuple[list[_File], list[Folder]]:
    """The files to write now, and the rest."""
    files: list[_File] = []
    left: list[Folder] = []
    size = 0
    for place, encoded in folders:
        rest: list[bytes] = []
        for each in encoded:
            name, node = decode_file(each)
            if node.size > _LARGE or size >= _SHARE_BYTES:
                rest.append(each)
            else:
                files.append(_File(place, name, node))
                size += node.size
        if rest:
            left.append(Folder(place, rest))
    return files, left


def _batches(files: Sequence[_File]) -> Iterator[Sequence[_File]]:
    """The files, cut so that small ones of one batch can be in memory."""
    start = size = 0
    for stop, (_, _, node) in enumerate(files, 1):
        size += min(node.size, SMALL_BLOB)
        if size >= _BATCH_BYTES or stop == len(files):
            yield files[start:stop]
            start, size = stop, 0


def make_empty(root: Path, place: Place, file: bytes) -> None:
    """Make a file that `write_range` fills."""
    name, node = decode_file(file)
    with OpenDirectory(root) as directory:
        _move(directory, (), place)
        os.close(new_file(name, directory, node.executable))


async def write_range(store: Store, root: Path, place: Place, file: bytes, start: int, stop: int) -> None:
    """Write the bytes from `start` to `stop` of a file that is there; a worker's share.

    Raises:
        Exception: as `write_folders`.
    """
    name, node = decode_file(file)
    with OpenDirectory(root) as directory:
        _move(directory, (), place)
        fd = os.open(name, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory.fd)
        try:
            os.lseek(fd, start, os.SEEK_SET)
            await _fill(fd, store.blobs, node, start, stop)
        finally:
            os.close(fd)


async def _fill(fd: int, blobs: BlobService, node: FileNode, start: int, stop: int) -> None:
    async for piece in read_contents(blobs, node, start, stop):
        write_all(fd, piece)


def _move(directory: OpenDirectory, at: Place, to: Place) -> None:
    """From one directory below the root to another."""
    common = next((n for n, (one, other) in enumerate(zip(at, to, strict=False)) if one != other), min(len(at), len(to)))
    for _ in at[common:]:
        directory.leave()
    for name in to[common:]:
        directory.enter(name)
