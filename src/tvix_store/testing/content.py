"""Content for tests: reproducible bytes, streams of them, and small trees."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Iterable
from typing import TypeVar

from tvix_store.model.digest import Digest
from tvix_store.model.directory import Directory
from tvix_store.model.nodes import FileNode, Node
from tvix_store.model.path_info import NarFacts
from tvix_store.nar import tokens
from tvix_store.services.blobs import BlobService
from tvix_store.services.store import Store
from tvix_store.testing.trees import Tree, castore

T = TypeVar("T")


def noise(size: int, seed: str = "") -> bytes:
    """`size` bytes that look random, always the same for a seed; each a prefix of the longer ones."""
    return hashlib.shake_128(f"tvix-store {seed}".encode()).digest(size)


async def stream(items: Iterable[T]) -> AsyncIterator[T]:
    """The items, one by one."""
    for item in items:
        yield item


def pieces(data: bytes, size: int) -> AsyncIterator[bytes]:
    """`data` in pieces of `size` bytes."""
    return stream(data[at : at + size] for at in range(0, len(data), size))


async def collect(items: AsyncIterator[bytes]) -> bytes:
    """All bytes of a stream."""
    return b"".join([item async for item in items])


async def put_file(blobs: BlobService, data: bytes, *, executable: bool = False) -> FileNode:
    """Store `data`, and return the node of a file with it."""
    return FileNode(await blobs.put(stream([data])), len(data), executable)


async def put_tree(store: Store, tree: Tree) -> Node:
    """Store a whole tree, and return its root node; sizes are by the store's rule."""
    content = castore(tree, store.size_rule)
    for blob in content.blobs.values():
        await store.blobs.put(stream([blob]))
    if content.directories:
        await store.directories.put(stream(content.directories))
    return content.root


def file_nar(data: bytes, *, executable: bool = False) -> NarFacts:
    """What is true of the NAR of a file with `data`."""
    nar = tokens.MAGIC + tokens.file_start(len(data), executable) + data + tokens.file_end(len(data))
    return NarFacts(len(nar), hashlib.sha256(nar).digest())


def diamond() -> list[Directory]:
    """Four directories, leaves first, the lowest of which two refer to. No file."""
    bottom = Directory({})
    left = Directory({b"bottom": bottom.node()})
    right = Directory({b"bottom": bottom.node(), b"other": bottom.node()})
    return [bottom, left, right, Directory({b"left": left.node(), b"right": right.node()})]


def nested(depth: int) -> list[Directory]:
    """Directories inside each other, `d/d/d…`, the innermost first: `depth` of them in an outermost one."""
    graph = [Directory({})]
    for _ in range(depth):
        graph.append(Directory({b"d": graph[-1].node()}))
    return graph


def missing(seed: str = "missing") -> Digest:
    """The digest of something that is in no store."""
    return Digest.of(noise(64, f"never stored {seed}"))
