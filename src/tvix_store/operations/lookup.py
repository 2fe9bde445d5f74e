"""What stands at a path inside a node."""

from __future__ import annotations

from collections import deque

from tvix_store.errors import InvalidError, NotFoundError
from tvix_store.model.directory import Directory
from tvix_store.model.names import show
from tvix_store.model.nodes import DirectoryNode, Node, SymlinkNode
from tvix_store.services.directories import DirectoryService

MAX_SYMLINKS = 40
"""As Linux follows."""


async def lookup(directories: DirectoryService, root: Node, path: bytes, *, follow: bool = False) -> Node:
    """The node at `path` (`bin/hello`; empty for the root itself) inside `root`.

    `follow` resolves symlinks on the way and at the end, as far as they stay inside `root`.

    Raises:
        NotFoundError: there is nothing at `path` (kind "path"), or a directory on the way is not in the store.
        InvalidError: `path`, or a symlink that is followed, leads out of `root`, or symlinks lead in a circle.
    """
    trail = [root]
    names = deque(path.split(b"/"))
    followed = 0
    while names:
        name = names.popleft()
        if name in {b"", b"."}:
            continue
        if name == b"..":
            if len(trail) == 1:
                raise InvalidError(f"path {show(path)} leads out of the store path")
            trail.pop()
            continue
        parent = trail[-1]
        child = (await read_directory(directories, parent)).entries.get(name) if isinstance(parent, DirectoryNode) else None
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


async def read_directory(directories: DirectoryService, node: DirectoryNode) -> Directory:
    """The directory that `node` refers to.

    Raises:
        NotFoundError: it is not in the store.
    """
    directory = await directories.get(node.digest)
    if directory is None:
        raise NotFoundError("directory", node.digest)
    return directory
