"""BlobService: bytes by their BLAKE3 digest."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from tvix_store.errors import NotFoundError
from tvix_store.model.digest import Digest
from tvix_store.model.wanted import wanted_with

SMALL_BLOB = 256 * 1024
"""Largest blob in bytes that `put_many` and `get_many` take; larger ones are streamed."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a blob: its digest and size (bytes). A chunk is itself readable as a blob."""

    digest: Digest
    size: int


@dataclass(frozen=True, slots=True)
class BlobStat:
    """A blob's size (bytes; None where the backend cannot tell) and its chunks, in order.

    `chunks` is empty if the blob is its own only chunk, and if the caller did not ask for them.
    """

    size: int | None
    chunks: Sequence[Chunk] = ()


class BlobService(Protocol):
    """Stores blobs. An acknowledged put survives a killed process, and every other user of the store can read the blob."""

    async def stat(self, digest: Digest, *, chunks: bool = False) -> BlobStat | None:
        """The blob's size and, where `chunks` asks for them, its chunks. None if the store lacks the blob."""
        ...

    async def missing(self, digests: Sequence[Digest]) -> set[Digest]:
        """The digests that the store lacks. The caller sends only these blobs.

        A store that others write to may be some seconds behind: what was put there a moment ago may be among them. See
        `surely_missing`.
        """
        ...

    def read(self, digest: Digest, start: int = 0, stop: int | None = None) -> AsyncIterator[bytes]:
        """The bytes from `start` up to `stop` (default: the end), verified, in pieces of at most 1 MiB.

        A `stop` behind the end means the end. At most a few pieces are read ahead of the consumer.

        Raises:
            NotFoundError: the blob is not there (before the first piece).
            CorruptError: stored bytes do not match their digest (nothing of the bad piece is given out).
        """
        ...

    async def put(self, data: AsyncIterable[bytes]) -> Digest:
        """Store the concatenation of the pieces of `data`; their cuts do not matter.

        Raises:
            ExhaustedError: a limit is reached, or the disk is full. Nothing of the blob became visible.
        """
        ...

    async def put_many(self, blobs: Sequence[bytes]) -> list[Digest]:
        """Store many blobs of at most SMALL_BLOB bytes at once, as `put` would each; their digests, in order.

        Raises:
            InvalidError: one is larger than SMALL_BLOB.
            ExhaustedError: as `put`; some may have been stored.
        """
        ...

    async def get_many(self, digests: Sequence[Digest]) -> list[bytes | None]:
        """Many small blobs at once, verified, in the order of `digests`; None for each that is not there.

        The caller bounds the total: it knows the sizes from the directories that name the blobs.

        Raises:
            ExhaustedError: one is larger than SMALL_BLOB.
            CorruptError: as `read`.
        """
        ...


async def get_all(blobs: BlobService, digests: Sequence[Digest]) -> list[bytes]:
    """As `BlobService.get_many`, of blobs that must be there.

    Raises:
        NotFoundError: one is not there.
    """
    contents: list[bytes] = []
    for digest, content in zip(digests, await blobs.get_many(digests), strict=True):
        if content is None:
            raise NotFoundError("blob", digest)
        contents.append(content)
    return contents


def wanted_blobs(blobs: object) -> None:
    """Check that an argument is a BlobService.

    Raises:
        InvalidError: it is something else.
    """
    wanted_with(blobs, ("read", "get_many"), "the blobs of a store: `store.blobs`")


async def surely_missing(blobs: BlobService, digests: Sequence[Digest]) -> set[Digest]:
    """As `BlobService.missing`, where a wrong answer would do harm: all that was acknowledged before the call is there."""
    missing = await blobs.missing(digests)
    for digest in list(missing):
        if await blobs.stat(digest) is None:  # a store that does not find one has looked anew
            return await blobs.missing(list(missing))
        missing.remove(digest)
    return missing
