"""Reading a file by a path that a person writes."""

from __future__ import annotations

from collections.abc import AsyncIterator

from tvix_store.errors import InvalidError
from tvix_store.model.nodes import DirectoryNode, FileNode
from tvix_store.operations.trees.resolve import resolve
from tvix_store.services.store import Store


async def read_file(store: Store, path: str, start: int = 0, stop: int | None = None) -> AsyncIterator[bytes]:
    """The bytes from `start` up to `stop` of the file at `path` (see `resolve`), following symlinks inside the store path.

    Raises:
        InvalidError: it is not a file.
        NotFoundError: there is nothing at `path`.
        CorruptError: stored content does not match its digest.
    """
    found = await resolve(store, path, follow=True)
    if not isinstance(found.node, FileNode):
        kind = "a directory" if isinstance(found.node, DirectoryNode) else "a symlink"
        raise InvalidError(f"{path} is {kind}, not a file")
    async for piece in store.blobs.read(found.node.digest, start, stop):
        yield piece
