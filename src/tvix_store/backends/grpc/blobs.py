"""GrpcBlobs: the BlobService of a server."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Sequence
from contextlib import aclosing

from tvix_store.backends.grpc.channel import Metadata
from tvix_store.backends.grpc.contents import MESSAGE, between, in_messages
from tvix_store.backends.grpc.single_blobs import SingleBlobs
from tvix_store.backends.grpc.small_blobs import BulkBlobs, EachBlob, SmallBlobs
from tvix_store.errors import CorruptError, ExhaustedError, NotFoundError
from tvix_store.model.digest import Digest
from tvix_store.protocol.blobs import encode_lone_file
from tvix_store.services.blobs import SMALL_BLOB, BlobStat, Chunk


class GrpcBlobs:
    """A BlobService over a server's calls for single blobs and for many small ones.

    single: Tells of blobs, and reads whole ones.
    parts: Reads chunks and lists of chunks.
    puts: Stores blobs.
    bulk: The calls for many small blobs, where the server has them.

    The protocol has no sizes but those of chunks. So `stat` knows a blob's size only where the caller asks for the chunks, and the
    blob has several. A whole read is checked against the digest of the blob. A range is read from chunks, and each chunk is checked
    against its own digest; that the list of chunks is the blob's is the server's word. Without a list, the blob is read from its
    start, and checked only if the read reaches the end.
    """

    def __init__(self, server: str, single: SingleBlobs, parts: SingleBlobs, puts: SingleBlobs, bulk: BulkBlobs | None) -> None:
        self._server = server
        self._single = single
        self._parts = parts
        self._puts = puts
        self._small: SmallBlobs = bulk or EachBlob(single)
        self._small_parts: SmallBlobs = bulk or EachBlob(parts)

    async def stat(self, digest: Digest, *, chunks: bool = False) -> BlobStat | None:
        if not chunks:
            return BlobStat(None) if await self._single.is_there(digest) else None
        parts = await self._parts.chunks(digest)
        if not parts:
            return None if parts is None else BlobStat(None)
        listed = () if len(parts) == 1 and parts[0].digest == digest else tuple(parts)
        return BlobStat(sum(part.size for part in parts), listed)

    async def missing(self, digests: Sequence[Digest]) -> set[Digest]:
        return await self._small.missing(digests)

    async def put_many(self, blobs: Sequence[bytes]) -> list[Digest]:
        return await self._small.put_many(blobs)

    async def get_many(self, digests: Sequence[Digest]) -> list[bytes | None]:
        return await self._small.get_many(digests)

    async def read(self, digest: Digest, start: int = 0, stop: int | None = None) -> AsyncIterator[bytes]:
        whole = start == 0 and stop is None
        pieces = self._single.read(digest) if whole else self._range(digest, start, stop)
        async with aclosing(pieces):
            async for piece in pieces:
                yield piece

    async def put(self, data: AsyncIterable[bytes], metadata: Metadata = ()) -> Digest:
        """As `BlobService.put`, with metadata for the call that streams a large blob."""
        async with aclosing(in_messages(data)) as pieces:
            first = await anext(pieces, b"")
            if len(first) == MESSAGE:
                return await self._puts.put_stream(first, pieces, metadata)
            digest = Digest.of(first)
            await self._puts.put(digest, first)
            return digest

    async def _range(self, digest: Digest, start: int, stop: int | None) -> AsyncGenerator[bytes, None]:
        chunks = await self._chunks(digest)
        if not chunks:
            async with aclosing(between(self._single.read(digest), start, stop)) as pieces:
                async for piece in pieces:
                    yield piece
            return
        first, at = _first_chunk(chunks, start)
        async with aclosing(between(self._contents(chunks[first:]), start - at, None if stop is None else stop - at)) as pieces:
            async for piece in pieces:
                yield piece

    async def _chunks(self, digest: Digest) -> Sequence[Chunk]:
        try:
            chunks = await self._parts.chunks(digest)
        except ExhaustedError:  # the list does not fit a message: it takes some hundred thousand chunks
            return ()
        if chunks is None:
            raise NotFoundError("blob", digest)
        return chunks

    async def _contents(self, chunks: Sequence[Chunk]) -> AsyncGenerator[bytes, None]:
        """The contents of the chunks, each verified, and read a piece at a time."""
        at = 0
        while at < len(chunks):
            some = _that_fit_a_piece(chunks, at)
            if some:
                contents = await self._small_parts.get_many([chunk.digest for chunk in some])
                for chunk, content in zip(some, contents, strict=True):
                    if content is None:
                        raise NotFoundError("blob", chunk.digest)
                    self._check_size(chunk, len(content))
                    yield content
            else:  # cut by other rules than ours
                some = chunks[at : at + 1]
                async with aclosing(self._large_chunk(*some)) as pieces:
                    async for piece in pieces:
                        yield piece
            at += len(some)

    async def _large_chunk(self, chunk: Chunk) -> AsyncGenerator[bytes, None]:
        size = 0
        async with aclosing(self._parts.read_chunk(chunk)) as pieces:
            async for piece in pieces:
                size += len(piece)
                if size > chunk.size:
                    break
                yield piece
        self._check_size(chunk, size)

    def _check_size(self, chunk: Chunk, size: int) -> None:
        if size != chunk.size:
            raise CorruptError(f"{self._server}: the size of chunk {chunk.digest} is not {chunk.size}, as the server says")


class GrpcLoneFiles:
    """The LoneFiles of a server: the metadata of the call describes the file beforehand. Servers other than ours ignore it."""

    def __init__(self, blobs: GrpcBlobs) -> None:
        self._blobs = blobs

    async def put(self, data: AsyncIterable[bytes], size: int, *, executable: bool) -> Digest:
        return await self._blobs.put(data, encode_lone_file(size, executable=executable))


def _first_chunk(chunks: Sequence[Chunk], start: int) -> tuple[int, int]:
    """The number of the chunk in which the byte `start` lies, and the position of the chunk's first byte."""
    at = 0
    for number, chunk in enumerate(chunks):
        if at + chunk.size > start:
            return number, at
        at += chunk.size
    return len(chunks), at


def _that_fit_a_piece(chunks: Sequence[Chunk], at: int) -> Sequence[Chunk]:
    """The chunks from number `at` on that `get_many` takes, up to the size of a piece."""
    end, size = at, 0
    while end < len(chunks) and chunks[end].size <= SMALL_BLOB and size + chunks[end].size <= MESSAGE:
        size += chunks[end].size
        end += 1
    return chunks[at:end]
