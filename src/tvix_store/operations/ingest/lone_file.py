"""A file that is all of a store path: what is true of its NAR is known when it has come."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterable, AsyncIterator

from tvix_store.concurrency.background_hash import BackgroundHash
from tvix_store.model.digest import Digest
from tvix_store.model.nodes import FileNode
from tvix_store.model.path_info import NarFacts
from tvix_store.nar import tokens
from tvix_store.services.blobs import BlobService
from tvix_store.services.nar import KnownNars


async def put_lone_file(
    blobs: BlobService, known_nars: KnownNars, data: AsyncIterable[bytes], size: int, *, executable: bool
) -> Digest:
    """Put a blob, and let `known_nars` know what is true of it as a file of `size` bytes; nothing, where it has another size.

    Raises:
        ExhaustedError: as `BlobService.put`.
    """
    since = known_nars.begin()
    sha256 = hashlib.sha256(tokens.MAGIC + tokens.file_start(size, executable))
    hashing = BackgroundHash(sha256)
    received = 0

    async def passed_on() -> AsyncIterator[bytes]:
        nonlocal received
        async for piece in data:
            await hashing.update(piece)
            received += len(piece)
            yield piece

    try:
        digest = await blobs.put(passed_on())
    finally:
        await hashing.finish()
    if received == size:
        sha256.update(tokens.file_end(size))
        facts = NarFacts(len(tokens.MAGIC) + tokens.file_size(size, executable), sha256.digest())
        await known_nars.put(FileNode(digest, size, executable), facts, since)
    return digest
