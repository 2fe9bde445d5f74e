"""Staging: an optional power of a backend. It takes content that may yet be refused."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple, Protocol

from tvix_store.model.nodes import Node
from tvix_store.model.path_info import NarFacts
from tvix_store.services.blobs import BlobService
from tvix_store.services.directories import DirectoryService

NO_RECORDS: Mapping[bytes, bytes] = MappingProxyType({})


class StagedNar(NamedTuple):
    """A root node, and what its stager computed itself of its NAR."""

    node: Node
    facts: NarFacts


class Stage(Protocol):
    """Content that nobody sees yet. Content that is put by these services cannot be read, through them or otherwise, until it is
    accepted.

    The services know what the store has, and do not keep that again. Closures have thousands of small paths: a stage keeps a small
    tree in memory, and accepting it is all that waits for a commit. Close a stage when nothing is being put any more.
    """

    @property
    def blobs(self) -> BlobService: ...

    @property
    def directories(self) -> DirectoryService: ...

    def new_bytes(self) -> int:
        """The bytes of the staged chunks that the store lacks, uncompressed. May read from the disk.

        To be called when all puts are done, before `accept`.
        """
        ...

    async def accept(self, nar: StagedNar | None = None, records: Mapping[bytes, bytes] = NO_RECORDS) -> None:
        """Make all of it part of the store, as safe as content put there directly. To be called once, when all puts are done.

        With the last of it, and not before, the facts of `nar` are known, and `records` are there, which are not `durable`.

        Raises:
            InvalidError: a record breaks a rule of RecordService; nothing was accepted.
            ExhaustedError: the disk is full.
        """
        ...

    async def close(self) -> None:
        """Take back content that was not accepted. Nothing of it is left."""
        ...


class Staging(Protocol):
    """Gives out stages."""

    def begin(self, *, rechecks: bool = False) -> Stage:
        """A new stage. If it `rechecks`, what the store has already is read and checked, and kept again where it is damaged."""
        ...
