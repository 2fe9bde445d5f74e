"""NarService and KnownNars: what is true of a node's NAR, calculated or remembered."""

from __future__ import annotations

from typing import Protocol

from tvix_store.model.nodes import Node
from tvix_store.model.path_info import NarFacts


class NarService(Protocol):
    """Tells the size and hash of a node's NAR."""

    async def calculate(self, node: Node) -> NarFacts:
        """Size and SHA-256 of the node's NAR, computed from stored content once and remembered by node.

        Raises:
            NotFoundError: a blob or directory that the node reaches is not in the store.
            InvalidError: the node, or a directory below it, states a wrong size.
            CorruptError: stored content does not match its digest.
            ExhaustedError: the NAR is too large to calculate.
        """
        ...


class KnownNars(Protocol):
    """The facts of NARs by node, from which a NarService answers. It may lose some.

    A store behind a server has none: a server believes only what it computed itself.
    """

    async def get(self, node: Node) -> NarFacts | None:
        """The facts that were put for exactly this node, or None."""
        ...

    def begin(self) -> int:
        """A number for `put`, to be taken before any content of the node is read, stored, or found to be there."""
        ...

    async def put(self, node: Node, facts: NarFacts, since: int) -> None:
        """Remember facts that the caller computed itself from the bytes that it stored as `node`, or read there.

        `since` is what `begin` returned. Where content may have been deleted since then, nothing is remembered.

        Never pass on what somebody else said: a NarService will repeat it, and signatures rest on that.
        """
        ...
