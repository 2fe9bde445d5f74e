"""Looking up the node at a path inside another node."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from tvix_store.errors import ExhaustedError, InvalidError, NotFoundError
from tvix_store.model.digest import Digest
from tvix_store.model.directory import Directory
from tvix_store.model.names import show
from tvix_store.model.nodes import DirectoryNode, Node, SymlinkNode
from tvix_store.model.store_path import StorePath
from tvix_store.services.directories import DirectoryService, parse
from tvix_store.services.store import Store

_MAX_SYMLINKS = 40
"""As Linux follows."""
_MAX_NAMES = 2000
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
    return (await _walk(directories, path, [root], follow=follow))[-1]


async def lookup_in_store(store: Store, path: bytes) -> Node:
    """The node at `path` (`<hash>-<name>/bin/hello`) below the store directory. Symlinks are followed, also into other store paths.

    Raises:
        NotFoundError, InvalidError, ExhaustedError: as `lookup`.
    """

    async def root(name: bytes) -> Node | None:
        try:
            store_path = StorePath.from_base_name(name.decode())
        except (UnicodeDecodeError, InvalidError):
            return None
        path_info = await store.path_infos.get(store_path.output_hash)
        return path_info.node if path_info is not None and path_info.store_path == store_path else None

    trail = await _walk(store.directories, path, [], _StoreDir(store.store_dir.encode() + b"/", root), follow=True)
    if not trail:
        raise InvalidError(f"path {show(path)} leads out of the store path")
    return trail[-1]


class _StoreDir(NamedTuple):
    """The directory in which store paths stand: its path, with a slash, and the root of a store path by its base name."""

    prefix: bytes
    root: Callable[[bytes], Awaitable[Node | None]]


async def _walk(
    directories: DirectoryService, path: bytes, trail: list[Node], store_dir: _StoreDir | None = None, *, follow: bool
) -> list[Node]:
    """The nodes from the beginning of `trail` to what stands at `path`. An empty trail is the store directory."""
    on_the_way = DirectoriesOnTheWay(directories)
    top = len(trail)
    names = deque(path.split(b"/"))
    followed = walked = 0
    while names:
        name = names.popleft()
        walked += 1
        if walked > _MAX_NAMES:
            raise ExhaustedError(f"path {show(path)} leads through more than {_MAX_NAMES} names")
        if name in {b"", b"."}:
            continue
        if name == b"..":
            if len(trail) == top:
                raise InvalidError(f"path {show(path)} leads out of the store path")
            trail.pop()
            continue
        child = None
        if not trail and store_dir is not None:
            child = await store_dir.root(name)
        elif trail and isinstance(trail[-1], DirectoryNode):
            child = (await on_the_way.read(trail[-1])).entries.get(name)
        if child is None:
            raise NotFoundError("path", show(path))
        if not (follow and isinstance(child, SymlinkNode)):
            trail.append(child)
            continue
        followed += 1
        if followed > _MAX_SYMLINKS:
            raise InvalidError(f"path {show(path)} leads through more than {_MAX_SYMLINKS} symlinks")
        target = child.target
        if target.startswith(b"/"):
            if store_dir is None or not target.startswith(store_dir.prefix):
                raise InvalidError(f"path {show(path)} leads out of the store path, to {show(target)}")
            trail, target = [], target.removeprefix(store_dir.prefix)
        names.extendleft(reversed(target.split(b"/")))
    return trail


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
