"""Deltas: an optional power of a store, to make a blob of another one and the difference."""

from __future__ import annotations

from typing import Protocol

from tvix_store.model.digest import Digest
from tvix_store.services.blobs import Chunk


class Deltas(Protocol):
    """Makes and applies deltas: frames of zstd with another blob as their prefix (docs/design/copying.md)."""

    async def make(self, base: Digest, target: Chunk, most: int) -> bytes | None:
        """A delta from `base` to the blob `target`, or None.

        A store may decline: the delta has more than `most` bytes, a blob is too large or not there, or there is too much to do.

        Raises:
            CorruptError: one of the blobs is damaged.
        """
        ...

    async def apply(self, base: Digest, target: Chunk, delta: bytes) -> None:
        """Store the blob `target`, which `delta` makes of `base`. It is checked first, and stored as any blob.

        Raises:
            IncompleteError: the store lacks `base`.
            InvalidError: it makes something else; nothing was stored.
            ExhaustedError: the disk is full, or there is too much to do.
            CorruptError: `base` is damaged.
        """
        ...
