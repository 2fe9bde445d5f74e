"""Chunks: the content of chunks as objects, compressed, verified when they are read."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from tvix_store.backends.objectstore.bucket import Bucket
from tvix_store.backends.objectstore.snix.frames import compress, decompress
from tvix_store.backends.objectstore.snix.keys import chunk_key, other_chunk_key
from tvix_store.errors import CorruptError
from tvix_store.model.digest import EMPTY, Digest

T = TypeVar("T")
MOST = 16 << 20
"""Bytes of the largest chunk that can be made."""
_MOST_STORED = MOST + (MOST >> 8) + 1024
"""Bytes of its object: what does not compress grows a little."""
_HERE = 32 << 10
"""Bytes that are compressed or decompressed on the event loop: 0.2 ms."""


class Chunks:
    """The chunks of a bucket."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket

    async def get(self, digest: Digest) -> bytes | None:
        """The content of a chunk; None where it is not there.

        Raises:
            CorruptError: it is not what its digest says.
        """
        return await self._get(digest, chunk_key(digest))

    async def get_listed(self, digest: Digest) -> bytes | None:
        """As `get`, of a chunk that a blob needs: also from where only some version of snix has put it."""
        content = await self.get(digest)
        return content if content is not None else await self._get(digest, other_chunk_key(digest))

    async def is_there(self, digest: Digest) -> bool:
        return await self._bucket.size(chunk_key(digest)) is not None

    async def put(self, digest: Digest, content: bytes | memoryview) -> None:
        """Store a chunk, whose digest was calculated."""
        if digest != EMPTY:
            await self._bucket.put(chunk_key(digest), await _run(compress, len(content), content))

    async def _get(self, digest: Digest, key: str) -> bytes | None:
        if digest == EMPTY:  # no object, as snix has it
            return b""
        found = await self._bucket.get(key, _MOST_STORED)
        return None if found is None else await _run(_verified, len(found.data), digest, found.data)


def _verified(digest: Digest, frame: bytes) -> bytes:
    content = decompress(frame, MOST, f"chunk {digest}")
    if Digest.of(content) != digest:
        raise CorruptError(f"what is stored as chunk {digest} is something else")
    return content


async def _run(work: Callable[..., T], size: int, *arguments: object) -> T:
    """Do work on `size` bytes: in a thread, if they are many."""
    return work(*arguments) if size <= _HERE else await asyncio.to_thread(work, *arguments)
