"""walk: everything below a path, without its contents."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from typing import NamedTuple

from tvix_store.model.nodes import DirectoryNode, Node
from tvix_store.operations.trees.resolve import PathInStore, resolve
from tvix_store.operations.trees.walk import walk_tree
from tvix_store.services.store import Store


class Entry(NamedTuple):
    """A node that a walk came to, and its path below the start: `bin/hello`; "" for the start itself.

    Bytes of a name that are no UTF-8 are as `os.fsdecode` gives them.
    """

    path: str
    node: Node


async def walk(store: Store, path: PathInStore) -> AsyncGenerator[Entry, None]:
    """The node at `path` (see `resolve`), and all below it: each directory before its contents, which are sorted by name.

    No symlink is followed. Memory is bounded by the directories on the way down.

    Raises:
        InvalidError, NotFoundError: as `resolve`.
        CorruptError: a stored directory does not match its digest.
    """
    entered: list[bytes] = []
    async for name, node in walk_tree((await resolve(store, path)).tree):
        if node is None:
            entered.pop()
            continue
        yield Entry(os.fsdecode(b"/".join((*entered[1:], name))), node)
        if isinstance(node, DirectoryNode):
            entered.append(name)
