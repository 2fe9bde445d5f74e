"""Looking up the node at a path inside another node."""

from __future__ import annotations

from collections import deque

from tvix_store.errors import ExhaustedError, InvalidError, NotFoundError
from tvix_store.model.digest import Digest
from tvix_store.model.directory import Directory
from tvix_store.model.names import show
from tvix_store.model.nodes import DirectoryNode, Node, SymlinkNode
from tvix_store.services.directories import DirectoryService, parse

MAX_SYMLINKS = 40
"""As Linux follows."""
MAX_NAMES = 2000
"""Names that may be walked through, symlinks resolved: so many are in the longest path that Linux takes."""
_MAX_ENTRIES = 1 << 18
"""Entries of the directories on the way after which no more are read."""


async def lookup(directories: DirectoryService, root: Node, path: bytes, *, follow: bool = False) -> Node:
    """The node at `path` (`bin/hello`; empty for the root itself) inside `root`.

    `follow` resolves symlinks on the way and at the end, as far as they stay inside `root`.

    Raises:
        NotFoundError: there is nothing at `path` (kind "path"), or a directory on the way is not in the store.
        InvalidError: `path`, or a symlink that is followed, leads out of `root`, or symlinks lead in a circle.
        ExhaustedError: too much is on the way.
    """
    on_the_way = DirectoriesOnTheWay(directories)
    trail = [root]
    names = deque(path.split(b"/"))
    followed = walked = 0
    while names:
        name = names.popleft()
        walked += 1
        if walked > MAX_NAMES:
            raise ExhaustedError(f"path {show(path)} leads through more than {MAX_NAMES} names")
        if name in {b"", b"."}:
            continue
        if name == b"..":
            if len(trail) == 1:
                raise InvalidError(f"path {show(path)} leads out of the store path")
            trail.pop()
            continue
        parent = trail[-1]
        child = (await on_the_way.read(parent)).entries.get(name) if isinstance(parent, DirectoryNode) else None
        if child is None:
            raise NotFoundError("path", show(path))
        if follow and isinstance(child, SymlinkNode):
            followed += 1
            if followed > MAX_SYMLINKS:
                raise InvalidError(f"path {show(path)} leads through more than {MAX_SYMLINKS} symlinks")
            if child.target.startswith(b"/"):
                raise InvalidError(f"path {show(path)} leads out of the store path, to {show(child.target)}")
            names.extendleft(reversed(child.target.split(b"/")))
        else:
            trail.append(child)
    return trail[-1]


class DirectoriesOnTheWay:
    """Reads the directories that one lookup comes to, each once: symlinks may lead to and fro."""

    def __init__(self, directories: DirectoryService) -> None:
        self._directories = directories
        self._read: dict[Digest, Directory] = {}
        self._entries = 0

    async def read(self, node: DirectoryNode) -> Directory:
        """The directory that `node` refers to.

        Raises:
            NotFoundError: as `read_directory`.
            ExhaustedError: those that were read had too many entries.
        """
        directory = self._read.get(node.digest)
        if directory is None:
            if self._entries > _MAX_ENTRIES:
                raise ExhaustedError(f"the directories on the way have more than {_MAX_ENTRIES} entries")
            directory = self._read[node.digest] = await read_directory(self._directories, node)
            self._entries += len(directory.entries)
        return directory


async def read_directory(directories: DirectoryService, node: DirectoryNode) -> Directory:
    """The directory that `node` refers to.

    Raises:
        NotFoundError: it is not in the store.
    """
    directory = await directories.get(node.digest)
    if directory is None:
        raise NotFoundError("directory", node.digest)
    await parse(directory)
    return directory
