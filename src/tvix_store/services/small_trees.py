"""SmallTrees: an optional power of a backend that stores a small tree, and what is known of it, in one go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from tvix_store.model.directory import Directory
from tvix_store.model.nodes import Node
from tvix_store.model.path_info import NarFacts


@dataclass(frozen=True, slots=True)
class SmallTree:
    """A tree that is held in memory as a whole: the contents of its files, its directories, leaves to root, and its root node."""

    blobs: Sequence[bytes]
    directories: Sequence[Directory]
    node: Node


class SmallTrees(Protocol):
    """Closures have thousands of small paths. Of each, contents, directories and records would wait for a commit of their own."""

    async def put(self, tree: SmallTree, nar: NarFacts, records: Mapping[bytes, bytes]) -> None:
        """Store a tree of up to some hundred KiB, which the caller made itself of the NAR that `nar` is true of, and `records`.

        All of it, or nothing but some content. It is as safe as what is put by the services, with records that are not `durable`.

        Raises:
            ExhaustedError: the disk is full.
        """
        ...
