"""SnixBlobs: blobs as lists of chunks, an object each, in the layout of snix."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable, Sequence
from contextlib import aclosing, suppress

from blake3 import blake3

from tvix_store.backends.objectstore.bucket import Bucket
from tvix_store.backends.objectstore.snix.chunks import Chunks
from tvix_store.backends.objectstore.snix.keys import blob_key
from tvix_store.backends.objectstore.snix.uploads import Uploads
from tvix_store.chunking import BlobAssembler, ChunkSizes, cut_blob
from tvix_store.concurrency.each_at_once import each_at_once, missing_at_once
from tvix_store.concurrency.in_order import in_order
from tvix_store.errors import CorruptError, DeniedError, ExhaustedError, InvalidError, NotFoundError
from tvix_store.model.digest import EMPTY, Digest
from tvix_store.protocol.blobs import decode_stat, encode_stat
from tvix_store.protocol.dialects import SNIX
from tvix_store.services.assembling import not_the_blob, wrong_chunk_size
from tvix_store.services.blobs import SMALL_BLOB, BlobStat, Chunk
from tvix_store.services.read_ahead import READ_AHEAD

_PIECE = 1 << 20
_SIZES = 1 << 63
_AT_ONCE = 32
"""Blobs of a batch that are worked on at a time."""
_AHEAD = 16
"""Chunks that are read ahead: 4 MiB, at most 8. With 50 ms to a server, that is 80 MiB/s."""
_AHEAD_ALONE = 2
"""The same, where other readers have taken the memory for that."""


class SnixBlobs:
    """A BlobService over a bucket, and its Assembling.

    A chunk is written before what names it. Most files are one chunk, so a reader asks for the chunk of a blob's digest first.
    """

    def __init__(self, bucket: Bucket, sizes: ChunkSizes) -> None:
        self.chunks = Chunks(bucket)
        self._bucket = bucket
        self._sizes = sizes
        self._uploads = Uploads(self.chunks)

    async def stat(self, digest: Digest, *, chunks: bool = False) -> BlobStat | None:
        listed = await self.listed(digest)
        if listed is None:
            return BlobStat(None) if digest != EMPTY and await self.chunks.is_there(digest) else None
        if not listed:
            return BlobStat(0 if digest == EMPTY else None)
        return BlobStat(sum(chunk.size for chunk in listed), listed if chunks and len(listed) > 1 else ())

    async def missing(self, digests: Sequence[Digest]) -> set[Digest]:
        return await missing_at_once(self._is_there, digests)

    async def read(self, digest: Digest, start: int = 0, stop: int | None = None) -> AsyncIterator[bytes]:
        async with aclosing(self._contents(digest, start, stop)) as contents:
            async for content in contents:
                for at in range(0, len(content), _PIECE):
                    yield bytes(content[at : at + _PIECE])

    async def put(self, data: AsyncIterable[bytes]) -> Digest:
        blob = BlobAssembler(self._sizes)
        listed: list[Chunk] = []
        async with self._uploads.begin() as upload:
            async for piece in data:
                for raw, content in await _in_thread(blob, piece):
                    listed.append(Chunk(Digest(raw), len(content)))
                    await upload(listed[-1].digest, content)
            for raw, content in blob.finish():
                listed.append(Chunk(Digest(raw), len(content)))
                await upload(listed[-1].digest, content)
        digest = Digest(blob.digest)
        await self.put_list(digest, listed)
        return digest

    async def put_many(self, blobs: Sequence[bytes]) -> list[Digest]:
        for blob in blobs:
            if len(blob) > SMALL_BLOB:
                raise InvalidError(f"put_many takes blobs of at most {SMALL_BLOB} bytes, not of {len(blob)}")
        digests = await asyncio.to_thread(lambda: [Digest.of(blob) for blob in blobs])
        await each_at_once(self._put_small, list(dict(zip(digests, blobs, strict=True)).items()), _AT_ONCE)
        return digests

    async def get_many(self, digests: Sequence[Digest]) -> list[bytes | None]:
        distinct = list(dict.fromkeys(digests))
        contents = dict(zip(distinct, await each_at_once(self._small, distinct, _AT_ONCE), strict=True))
        return [contents[digest] for digest in digests]

    async def assemble(self, digest: Digest, chunks: Sequence[Chunk]) -> None:
        """As `Assembling.assemble`."""
        hasher = blake3()
        parts: list[Chunk] = []
        async with aclosing(in_order(self._part, chunks, _AHEAD)) as read:
            async for own, contents in read:
                for content in contents:
                    hasher.update(content)
                parts += own
        if hasher.digest() != digest.raw:
            raise not_the_blob(digest)
        await self.put_list(digest, parts)

    async def listed(self, digest: Digest) -> Sequence[Chunk] | None:
        """The chunks of a blob. None are listed of one that is its own only chunk. None where it is not known as a blob."""
        key = blob_key(digest)
        found = await self._bucket.get(key)
        if found is None:
            return None
        try:
            listed = [Chunk(*chunk) for chunk in decode_stat(SNIX, found.data)]
        except InvalidError as error:
            raise CorruptError(f"the object {key} is damaged: {error}") from None
        if sum(chunk.size for chunk in listed) >= _SIZES:
            raise CorruptError(f"the object {key} is damaged: it says more bytes than a blob can have")
        return listed

    async def put_list(self, digest: Digest, chunks: Sequence[Chunk]) -> None:
        """Make a blob of chunks that are there."""
        named = ((chunk.digest, chunk.size) for chunk in chunks)
        await self._bucket.put(blob_key(digest), encode_stat(SNIX, named) if len(chunks) > 1 else b"")

    async def _contents(self, digest: Digest, start: int, stop: int | None) -> AsyncGenerator[memoryview, None]:
        """The content from `start` to `stop`, chunk by chunk."""
        whole = await self.chunks.get(digest)
        listed = () if whole is not None else await self.listed(digest)
        if listed is None:
            raise NotFoundError("blob", digest)
        if whole is not None or not listed:
            content = memoryview(await self._chunk(Chunk(digest, -1)) if whole is None else whole)
            yield content[start : None if stop is None else max(stop, 0)]
            return
        wanted = list(_overlapping(listed, start, stop))
        size = sum(chunk.size for _, chunk in wanted[:_AHEAD])
        with READ_AHEAD.room(size) as has_room:
            reading = in_order(self._chunk, [chunk for _, chunk in wanted], _AHEAD if has_room else _AHEAD_ALONE)
            async with aclosing(reading) as contents:
                places = iter(wanted)
                async for data in contents:
                    at, _ = next(places)
                    yield memoryview(data)[max(start - at, 0) : None if stop is None else max(stop - at, 0)]

    async def _chunk(self, chunk: Chunk) -> bytes:
        """The content of a chunk that must be there; of any size, if it is -1."""
        content = await self.chunks.get_listed(chunk.digest)
        if content is None or chunk.size not in (-1, len(content)):
            raise CorruptError(f"chunk {chunk.digest} of {chunk.size} bytes, which a blob needs, is missing or of another size")
        return content

    async def _part(self, chunk: Chunk) -> tuple[Sequence[Chunk], Iterable[bytes | memoryview]]:
        """A blob that another one is made of: as chunks, and its content."""
        whole = await self.chunks.get(chunk.digest)
        if whole is not None:
            if len(whole) != chunk.size:
                raise wrong_chunk_size(chunk)
            return ((chunk,) if whole else ()), (whole,)
        listed = await self.listed(chunk.digest)
        if listed is None:
            raise NotFoundError("blob", chunk.digest)
        if sum(each.size for each in listed) != chunk.size:
            raise wrong_chunk_size(chunk)
        return listed, [await self._chunk(each) for each in listed]

    async def _is_there(self, digest: Digest) -> bool:
        """Whether a blob is there, also for snix: what is there as a chunk of others alone becomes a blob."""
        if await self._bucket.size(blob_key(digest)) is not None:
            return True
        if digest == EMPTY or not await self.chunks.is_there(digest):
            return False
        with suppress(DeniedError):  # who may only read puts nothing that needs it
            await self.put_list(digest, ())
        return True

    async def _put_small(self, blob: tuple[Digest, bytes]) -> None:
        digest, content = blob
        if await self._bucket.size(blob_key(digest)) is not None:
            return
        _, chunks = cut_blob(content, self._sizes)
        for raw, part in chunks:
            await self.chunks.put(Digest(raw), part)
        await self.put_list(digest, [Chunk(Digest(raw), len(part)) for raw, part in chunks])

    async def _small(self, digest: Digest) -> bytes | None:
        blob = await self.chunks.get(digest)
        if blob is None:
            listed = await self.listed(digest)
            if listed is None:
                return None
            size = sum(chunk.size for chunk in listed)
            parts = listed or (Chunk(digest, -1),)
            blob = b"" if size > SMALL_BLOB else b"".join([await self._chunk(chunk) for chunk in parts])
        else:
            size = len(blob)
        if max(size, len(blob)) > SMALL_BLOB:
            raise ExhaustedError(f"blob {digest} has {max(size, len(blob))} bytes; get_many gives out at most {SMALL_BLOB}")
        return blob


def _overlapping(chunks: Sequence[Chunk], start: int, stop: int | None) -> Iterable[tuple[int, Chunk]]:
    """The chunks that have bytes from `start` to `stop`, and where in the blob each begins."""
    at = 0
    for chunk in chunks:
        if at + chunk.size > start and (stop is None or at < stop):
            yield at, chunk
        at += chunk.size


async def _in_thread(blob: BlobAssembler, piece: bytes) -> list[tuple[bytes, bytes | memoryview]]:
    return blob.feed(piece) if len(piece) < 64 << 10 else await asyncio.to_thread(blob.feed, piece)
