"""A blob from chunks that the store has: checked, and recorded."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

from blake3 import blake3

from tvix_store.errors import IncompleteError, InvalidError, NotFoundError
from tvix_store.model.digest import EMPTY, Digest
from tvix_store.services.assembling import Assembling, not_the_blob, wrong_chunk_size
from tvix_store.services.blobs import BlobService, Chunk, surely_missing
from tvix_store.services.granular import MAX_CHUNK, check_list

_AT_ONCE = 4096
"""Chunks that are looked at in a round of the event loop."""


async def assemble_blob(blobs: BlobService, assembling: Assembling | None, digest: Digest, chunks: Sequence[Chunk]) -> None:
    """Make the blob `digest` of `chunks`; none make the empty blob. Where nothing can assemble, the content is put as a whole.

    A blob that is there is left as it is, and `chunks` are not looked at.

    Raises:
        IncompleteError: a chunk is not in the store.
        InvalidError: the chunks are not the blob, or one is empty, too large, or of another size than is stated. Or most
            are very small.
        CorruptError: a chunk is damaged.
        ExhaustedError: the disk is full.
    """
    size = 0
    for at in range(0, len(chunks), _AT_ONCE):
        for chunk in chunks[at : at + _AT_ONCE]:
            if not 0 < chunk.size <= MAX_CHUNK:
                raise InvalidError(f"chunk {chunk.digest} is said to have {chunk.size} bytes; a chunk has 1 to {MAX_CHUNK}")
            size += chunk.size
        await asyncio.sleep(0)
    if chunks:
        check_list(digest, len(chunks), size)
    if await blobs.stat(digest) is not None:
        return
    if not chunks:
        if digest != EMPTY:
            raise InvalidError(f"blob {digest} is not empty, but no chunks are listed")
        await blobs.put_many([b""])
        return
    for at in range(0, len(chunks), _AT_ONCE):
        some = [chunk.digest for chunk in chunks[at : at + _AT_ONCE]]
        absent = await surely_missing(blobs, some)
        for each in some:
            if each in absent:
                raise IncompleteError(f"chunk {each} is not in the store; put it first")
        await asyncio.sleep(0)
    if assembling is not None:
        try:
            await assembling.assemble(digest, chunks)
        except NotFoundError as error:  # it was found damaged meanwhile, and forgotten
            raise IncompleteError(f"{error}; put it first") from error
        return
    hasher = blake3()
    async for piece in _contents(blobs, chunks):
        hasher.update(piece)
    if hasher.digest() != digest.raw:
        raise not_the_blob(digest)
    if await blobs.put(_contents(blobs, chunks)) != digest:
        raise not_the_blob(digest)


async def _contents(blobs: BlobService, chunks: Sequence[Chunk]) -> AsyncIterator[bytes]:
    for chunk in chunks:
        size = 0
        async for piece in blobs.read(chunk.digest, 0, chunk.size + 1):
            size += len(piece)
            yield piece
        if size != chunk.size:
            raise wrong_chunk_size(chunk)
