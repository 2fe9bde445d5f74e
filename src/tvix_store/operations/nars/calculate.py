"""Size and SHA-256 of a node's NAR, from stored content."""

from __future__ import annotations

import hashlib

from tvix_store.concurrency.background_hash import BackgroundHash
from tvix_store.model.path_info import NarFacts
from tvix_store.operations.nars.render import render_nar
from tvix_store.operations.nars.size import nar_size
from tvix_store.services.blobs import BlobService
from tvix_store.services.directories import DirectoryTree


async def calculate_nar(blobs: BlobService, tree: DirectoryTree) -> NarFacts:
    """What is true of the NAR of the tree's root; a piece is hashed in a thread while the next one is rendered.

    Raises:
        NotFoundError, InvalidError, CorruptError: as `render_nar`.
        ExhaustedError: as `nar_size`, before anything is rendered.
    """
    expected = await nar_size(tree)
    sha256 = hashlib.sha256()
    hashing = BackgroundHash(sha256)
    size = 0
    async for piece in render_nar(blobs, tree):
        await hashing.update(piece)
        size += len(piece)
    await hashing.finish()
    assert size == expected, f"the NAR of {tree.root} was to have {expected} bytes, and has {size}"
    return NarFacts(size, sha256.digest())
