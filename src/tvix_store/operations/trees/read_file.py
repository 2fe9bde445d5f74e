"""Reading a file by a path that a person writes."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from tvix_store.errors import InvalidError
from tvix_store.model.nodes import DirectoryNode, FileNode
from tvix_store.operations.trees.resolve import PathInStore, path_text, resolve
from tvix_store.services.store import Store


async def read_file(store: Store, path: PathInStore, start: int = 0, stop: int | None = None) -> AsyncGenerator[bytes, None]:
    """The bytes from `start` up to `stop` of the file at `path` (see `resolve`), following symlinks inside the store path.

    Raises:
        InvalidError: it is not a file.
        NotFoundError: there is nothing at `path`.
        CorruptError: stored content does not match its digest.
    """
    found = await resolve(store, path, follow=True)
    if not isinstance(found.node, FileNode):
        kind = "a directory" if isinstance(found.node, DirectoryNode) else "a symlink"
        raise InvalidError(f"{path_text(path)} is {kind}, not a file")
    async for piece in store.blobs.read(found.node.digest, start, stop):
        yield piece


async def read_bytes(store: Store, path: PathInStore, start: int = 0, stop: int | None = None) -> bytes:
    """As `read_file`, all in one. The caller knows that it fits into memory."""
    return b"".join([piece async for piece in read_file(store, path, start, stop)])


async def read_text(store: Store, path: PathInStore, encoding: str = "utf-8", errors: str = "strict") -> str:
    """As `read_bytes`, as a text.

    Raises:
        UnicodeDecodeError: it is none in this encoding, and `errors` is "strict".
    """
    return (await read_bytes(store, path)).decode(encoding, errors)
