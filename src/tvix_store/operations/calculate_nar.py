"""Size and SHA-256 of a node's NAR, from stored content."""

from __future__ import annotations

import hashlib

from tvix_store.model.nodes import Node
from tvix_store.model.path_info import NarFacts
from tvix_store.operations.closure import Closure
from tvix_store.operations.hash_beside import HashBeside
from tvix_store.operations.nar_size import nar_size
from tvix_store.operations.render_nar import render_closure
from tvix_store.services.blobs import BlobService
from tvix_store.services.directories import DirectoryService


async def calculate_nar(blobs: BlobService, directories: DirectoryService, node: Node) -> NarFacts:
    """What is true of the node's NAR; a piece is hashed in a thread while the next one is rendered.

    Raises:
        NotFoundError, InvalidError, CorruptError: as `render_nar`.
        ExhaustedError: as `nar_size`, before anything is rendered.
    """
    closure = Closure(directories, node)
    expected = await nar_size(closure)
    sha256 = hashlib.sha256()
    hashing = HashBeside(sha256)
    size = 0
    async for piece in render_closure(blobs, closure):
        await hashing.update(piece)
        size += len(piece)
    await hashing.finish()
    assert size == expected, f"the NAR of {node} was to have {expected} bytes, and has {size}"
    return NarFacts(size, sha256.digest())
