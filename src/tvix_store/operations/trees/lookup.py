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
from tvix_store.services.directories import DirectoryTree, read_directory
from tvix_store.services.store import Store

_MAX_SYMLINKS = 40
"""As Linux follows."""
_MAX_NAMES = 2000
"""Names that may be walked through, symlinks resolved: so many are in the longest path that Linux takes."""
_MAX_ENTRIES = 1 << 18
"""Entries of the directories on the way after which no more are read."""


async def lookup(tree: DirectoryTree, path: bytes, *, follow: bool = False) -> Node:
    """The node at `path` (`bin/hello`; empty for the root itself) inside a tree.

    `follow` resolves symlinks on the way and at the end, as far as they stay inside the tree.

    Raises:
        NotFoundError: there is nothing at `path` (kind "path"), or a directory on the way is not in the store.
        InvalidError: `path`, or a symlink that is followed, leads out of the tree, or symlinks lead in a circle.
        ExhaustedError: too much is on the way.
    """
    _, trail = await _walk(path, tree, None, follow=follow)
    return trail[-1]


async def lookup_in_store(store: Store, path: bytes) -> DirectoryTree:
    """The tree of the node at `path` (`<hash>-<name>/bin/hello`) below the store directory.

    Symlinks are followed, also into other store paths.

    Raises:
        NotFoundError, InvalidError, ExhaustedError: as `lookup`.
    """

    async def tree_of(name: bytes) -> DirectoryTree | None:
        try:
            store_path = StorePath.from_base_name(name.decode())
        except (UnicodeDecodeError, InvalidError):
            return None
        path_info = await store.path_infos.get(store_path.output_hash)
        return store.directories.tree(path_info.node) if path_info is not None and path_info.store_path == store_path else None

    tree, trail = await _walk(path, None, _StoreDir(store.store_dir.encode() + b"/", tree_of), follow=True)
    if tree is None or not trail:
        raise InvalidError(f"path {show(path)} leads out of the store path")
    return tree.below(trail[-1])


class _StoreDir(NamedTuple):
    """The directory in which store paths stand: its path, with a slash, and the tree of a store path by its base name."""

    prefix: bytes
    tree: Callable[[bytes], Awaitable[DirectoryTree | None]]


async def _walk(
    path: bytes, tree: DirectoryTree | None, store_dir: _StoreDir | None, *, follow: bool
) -> tuple[DirectoryTree | None, list[Node]]:
    """The tree in which `path` ends, and the nodes from its root to there. It begins in `tree`, or else in the store directory.

    No nodes stand for the store directory itself.
    """
    on_the_way = _DirectoriesOnTheWay()
    trail = [] if tree is None else [tree.root]
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
            tree = await store_dir.tree(name)
            child = None if tree is None else tree.root
        elif tree is not None and trail and isinstance(trail[-1], DirectoryNode):
            child = (await on_the_way.read(tree, trail[-1])).entries.get(name)
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
    return tree, trail


class _DirectoriesOnTheWay:
    """Reads the directories that one lookup comes to, each once: symlinks may lead to and fro."""

    def __init__(self) -> None:
        self._read: dict[Digest, Directory] = {}
        self._entries = 0

    async def read(self, tree: DirectoryTree, node: DirectoryNode) -> Directory:
        """The directory that `node` refers to, which is in `tree`.

        Raises:
            NotFoundError: it is not in the store.
            ExhaustedError: those that were read had too many entries.
        """
        directory = self._read.get(node.digest)
        if directory is None:
            if self._entries > _MAX_ENTRIES:
                raise ExhaustedError(f"the directories on the way have more than {_MAX_ENTRIES} entries")
            directory = self._read[node.digest] = await read_directory(tree, node.digest)
            self._entries += len(directory.entries)
        return directory
