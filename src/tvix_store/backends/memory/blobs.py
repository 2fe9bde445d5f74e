"""MemoryBlobs: blobs as chunks in a dict."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Sequence

from blake3 import blake3

from tvix_store.chunking import DEFAULT_SIZES, BlobAssembler, ChunkSizes, CutChunk, cut_blob
from tvix_store.errors import ExhaustedError, InvalidError, NotFoundError
from tvix_store.model.digest import Digest
from tvix_store.services.assembling import not_the_blob, wrong_chunk_size
from tvix_store.services.blobs import SMALL_BLOB, BlobStat, Chunk

_PIECE = 1 << 20


class MemoryBlobs:
    """A BlobService in memory: chunks by digest, and the chunk list of every blob that is more than one chunk."""

    def __init__(self, sizes: ChunkSizes = DEFAULT_SIZES) -> None:
        self._sizes = sizes
        self._chunks: dict[Digest, bytes] = {}
        self._lists: dict[Digest, tuple[Chunk, ...]] = {}

    async def stat(self, digest: Digest, *, chunks: bool = False) -> BlobStat | None:
        chunk = self._chunks.get(digest)
        if chunk is not None:
            return BlobStat(len(chunk))
        parts = self._lists.get(digest)
        if parts is None:
            return None
        return BlobStat(sum(part.size for part in parts), parts if chunks else ())

    async def missing(self, digests: Sequence[Digest]) -> set[Digest]:
        return {digest for digest in digests if digest not in self._chunks and digest not in self._lists}

    async def read(self, digest: Digest, start: int = 0, stop: int | None = None) -> AsyncIterator[bytes]:
        at = 0
        for chunk in self._contents(digest):
            wanted = memoryview(chunk)[max(start - at, 0) : None if stop is None else max(stop - at, 0)]
            for offset in range(0, len(wanted), _PIECE):
                yield bytes(wanted[offset : offset + _PIECE])
            at += len(chunk)

    async def put(self, data: AsyncIterable[bytes]) -> Digest:
        blob = BlobAssembler(self._sizes)
        chunks: list[CutChunk] = []
        async for piece in data:
            chunks += blob.feed(piece)
        chunks += blob.finish()
        return self._keep(blob.digest, chunks)

    async def put_many(self, blobs: Sequence[bytes]) -> list[Digest]:
        for blob in blobs:
            if len(blob) > SMALL_BLOB:
                raise InvalidError(f"put_many takes blobs of at most {SMALL_BLOB} bytes, not of {len(blob)}")
        return [self._keep(*cut_blob(blob, self._sizes)) for blob in blobs]

    async def get_many(self, digests: Sequence[Digest]) -> list[bytes | None]:
        return [self._small(digest) if digest in self._chunks or digest in self._lists else None for digest in digests]

    async def assemble(self, digest: Digest, chunks: Sequence[Chunk]) -> None:
        """As `Assembling.assemble`."""
        hasher = blake3()
        parts: list[Chunk] = []
        for chunk in chunks:
            contents = list(self._contents(chunk.digest))
            if sum(map(len, contents)) != chunk.size:
                raise wrong_chunk_size(chunk)
            for content in contents:
                hasher.update(content)
            parts += self._lists.get(chunk.digest, (chunk,))
        if hasher.digest() != digest.raw:
            raise not_the_blob(digest)
        if len(parts) > 1:
            self._lists[digest] = tuple(parts)

    def size_beyond(self, other: MemoryBlobs) -> int:
        """The bytes of the chunks that `other` lacks."""
        return sum(len(chunk) for digest, chunk in self._chunks.items() if digest not in other._chunks)

    def take_over(self, other: MemoryBlobs) -> None:
        """Store all that `other` has."""
        self._chunks |= other._chunks
        self._lists |= other._lists

    def _keep(self, blob: bytes, chunks: Sequence[CutChunk]) -> Digest:
        """Store a blob and its chunks, all at once."""
        digest = Digest(blob)
        self._chunks.update((Digest(chunk), bytes(content)) for chunk, content in chunks)
        if len(chunks) > 1:
            self._lists[digest] = tuple(Chunk(Digest(chunk), len(content)) for chunk, content in chunks)
        return digest

    def _contents(self, digest: Digest) -> Iterable[bytes]:
        """The chunks of a blob."""
        chunk = self._chunks.get(digest)
        if chunk is not None:
            return (chunk,)
        parts = self._lists.get(digest)
        if parts is None:
            raise NotFoundError("blob", digest)
        return (self._chunks[part.digest] for part in parts)

    def _small(self, digest: Digest) -> bytes:
        blob = b"".join(self._contents(digest))
        if len(blob) > SMALL_BLOB:
            raise ExhaustedError(f"blob {digest} has {len(blob)} bytes; get_many gives out at most {SMALL_BLOB}")
        return blob
