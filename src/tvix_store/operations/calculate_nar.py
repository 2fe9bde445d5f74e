"""Size and SHA-256 of a node's NAR, from stored content."""

from __future__ import annotations

import asyncio
import hashlib

from tvix_store.model.nodes import Node
from tvix_store.model.path_info import NarFacts
from tvix_store.operations.render_nar import render_nar
from tvix_store.services.blobs import BlobService
from tvix_store.services.directories import DirectoryService


async def calculate_nar(blobs: BlobService, directories: DirectoryService, node: Node) -> NarFacts:
    """What is true of the node's NAR; a piece is hashed in a thread while the next one is rendered.

    Raises:
        NotFoundError, InvalidError, CorruptError: as `render_nar`.
    """
    loop = asyncio.get_running_loop()
    sha256 = hashlib.sha256()
    size = 0
    hashed: asyncio.Future[None] | None = None
    async for piece in render_nar(blobs, directories, node):
        if hashed:
            await hashed
        hashed = loop.run_in_executor(None, sha256.update, piece)
        size += len(piece)
    if hashed:
        await hashed
    return NarFacts(size, sha256.digest())
