"""Assembling: an optional power of a backend that keeps blobs as lists of chunks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from tvix_store.errors import InvalidError
from tvix_store.model.digest import Digest
from tvix_store.services.blobs import Chunk


class Assembling(Protocol):
    """Makes blobs of chunks that the store has."""

    async def assemble(self, digest: Digest, chunks: Sequence[Chunk]) -> None:
        """Make a blob of `chunks`, one or more blobs that the store has. Their content is read, checked, and not stored again.

        Raises:
            InvalidError: together they are not the blob, or one has another size than is stated; nothing became visible.
            NotFoundError: one is not there.
            CorruptError: one is damaged.
            ExhaustedError: the disk is full.
        """
        ...


def not_the_blob(digest: Digest) -> InvalidError:
    return InvalidError(f"the chunks that are listed are not blob {digest}")


def wrong_chunk_size(chunk: Chunk) -> InvalidError:
    return InvalidError(f"chunk {chunk.digest} has not {chunk.size} bytes, as is stated")
