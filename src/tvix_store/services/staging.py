"""Staging: an optional power of a backend that takes content before it is known whether it is wanted."""

from __future__ import annotations

from typing import Protocol

from tvix_store.services.blobs import BlobService
from tvix_store.services.directories import DirectoryService


class Stage(Protocol):
    """Content that nobody sees yet: what is put by these services cannot be read, by them or others, until it is accepted.

    The services know what the store has, and do not keep that again. Close a stage when nothing is being put any more.
    """

    @property
    def blobs(self) -> BlobService: ...

    @property
    def directories(self) -> DirectoryService: ...

    async def accept(self) -> None:
        """Make all of it part of the store, where it is as safe as what is put there. Once, when all puts are done.

        Raises:
            ExhaustedError: the disk is full.
        """
        ...

    async def close(self) -> None:
        """Take back what was not accepted: nothing of it is left."""
        ...


class Staging(Protocol):
    """Gives out stages."""

    def begin(self, *, rechecks: bool = False) -> Stage:
        """A new stage. If it `rechecks`, what the store has already is read and checked, and kept again where it is damaged."""
        ...
