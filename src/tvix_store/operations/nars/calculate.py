"""Size and SHA-256 of a node's NAR, from stored content."""

from __future__ import annotations

import hashlib

from tvix_store.concurrency.background_hash import BackgroundHash
from tvix_store.model.nodes import Node
from tvix_store.model.path_info import NarFacts
from tvix_store.operations.nars.render import render_tree
from tvix_store.operations.nars.size import nar_size
from tvix_store.operations.trees.stored_tree import StoredTree
from tvix_store.services.blobs import BlobService
from tvix_store.services.directories import DirectoryService


async def calculate_nar(blobs: BlobService, directories: DirectoryService, node: Node) -> NarFacts:
    """What is true of the node's NAR; a piece is hashed in a thread while the next one is rendered.

    Raises:
        NotFoundError, InvalidError, CorruptError: as `render_nar`.
        ExhaustedError: as `nar_size`, before anything is rendered.
    """
    tree = StoredTree(directories, node)
    expected = await nar_size(tree)
    sha256 = hashlib.sha256()
    hashing = BackgroundHash(sha256)
    size = 0
    async for piece in render_tree(blobs, tree):
        await hashing.update(piece)
        size += len(piece)
    await hashing.finish()
    assert size == expected, f"the NAR of {node} was to have {expected} bytes, and has {size}"
    return NarFacts(size, sha256.digest())
