"""A node as a tar archive (POSIX.1-2001, "pax"), always the same for the same node."""

from __future__ import annotations

import tarfile
from collections.abc import AsyncIterator

from tvix_store.model.nodes import DirectoryNode, FileNode, Node, SymlinkNode
from tvix_store.model.wanted import wanted
from tvix_store.operations.trees.walk import fetch_tree, read_contents
from tvix_store.services.blobs import BlobService, wanted_blobs
from tvix_store.services.directories import DirectoryTree, wanted_tree

_PIECE = 256 * 1024


async def render_tar(blobs: BlobService, tree: DirectoryTree, name: bytes) -> AsyncIterator[bytes]:
    """The bytes of an archive in which the tree's root is called `name`, in pieces of 256 KiB to 1.3 MiB but for the last.

    Members are sorted by name; each is owned by 0:0, has the time 1 (as in Nix's store), and the mode 0644, or 0755 if it is
    executable or a directory. Names that are not UTF-8 keep their bytes.

    Raises:
        NotFoundError, InvalidError, CorruptError: as `fetch_tree`. The pieces given out before are no archive then.
    """
    wanted_blobs(blobs)
    wanted_tree(tree)
    wanted(name, bytes, "bytes: the name of the root")
    pending = bytearray()
    entered: list[bytes] = []
    async for batch in fetch_tree(blobs, tree):
        contents = iter(batch.contents)
        for step_name, child in batch.steps:
            if child is None:
                entered.pop()
                continue
            path = b"/".join((*entered, step_name or name))
            pending += _header(path, child)
            if type(child) is FileNode:
                pending += next(contents)
                pending += bytes(-child.size % tarfile.BLOCKSIZE)
            elif type(child) is DirectoryNode:
                entered.append(step_name or name)
            if len(pending) >= _PIECE:
                yield bytes(pending)
                pending.clear()
        if batch.large:
            step_name, file = batch.large
            pending += _header(b"/".join((*entered, step_name or name)), file)
            async for piece in read_contents(blobs, file):
                pending += piece
                if len(pending) >= _PIECE:
                    yield bytes(pending)
                    pending.clear()
            pending += bytes(-file.size % tarfile.BLOCKSIZE)
    yield bytes(pending + bytes(2 * tarfile.BLOCKSIZE))


def _header(path: bytes, node: Node) -> bytes:
    worker = tarfile.TarInfo(path.decode("utf-8", "surrogateescape"))
    worker.mtime = 1
    match node:
        case FileNode():
            worker.size = node.size
            worker.mode = 0o755 if node.executable else 0o644
        case DirectoryNode():
            worker.type = tarfile.DIRTYPE
            worker.mode = 0o755
        case SymlinkNode():
            worker.type = tarfile.SYMTYPE
            worker.linkname = node.target.decode("utf-8", "surrogateescape")
            worker.mode = 0o777
    return worker.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
