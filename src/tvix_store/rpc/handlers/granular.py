"""BulkService, the parts of content: directories, chunks and lists of chunks, many in one call."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sequence
from dataclasses import replace

from tvix_store.compression.chunk_frames import checked_contents
from tvix_store.concurrency.each_at_once import each_at_once
from tvix_store.errors import ExhaustedError, InvalidError
from tvix_store.model.chunk_table import ChunkTable, Row
from tvix_store.model.digest import Digest
from tvix_store.model.directory import Directory
from tvix_store.protocol.bulk import MAX_BLOBS, decode_blobs, decode_digests, encode_blobs, encode_digests
from tvix_store.protocol.chunk_tables import (
    MAX_CHUNKS,
    ChunkList,
    decode_chunk_list,
    decode_chunk_lists,
    decode_chunks,
    decode_get_chunk,
    decode_sized_digests,
    encode_chunk_lists,
    encode_chunks,
)
from tvix_store.protocol.dialects import BULK_SERVICE
from tvix_store.rpc.method import Answer, Call, Method, ServerStreaming, Takes, Unary, client_streaming
from tvix_store.services.batches import filling
from tvix_store.services.blobs import Chunk
from tvix_store.services.frames import Frame
from tvix_store.services.granular import MAX_CHUNK, Granular, StoredChunk, check_list
from tvix_store.services.listed import listed_chunks
from tvix_store.services.read_ahead import READ_AHEAD
from tvix_store.traffic import SMALL, Budget

_MESSAGE = 1 << 20
"""Bytes that fill an answer's message."""
_AROUND = 64 << 10
"""Bytes around the largest chunk in a message."""
_DIGESTS = Takes(max_message=MAX_BLOBS * 34, decode=decode_digests)
_SIZED_DIGESTS = Takes(max_message=MAX_BLOBS * 40 + 64, decode=decode_sized_digests)

_DIRECTORIES_AT_ONCE = 16
"""Directories that are looked up in one hop to a thread. Most have a KiB, but one may have 16 MiB."""
_CHUNKS_AT_ONCE = 64
"""Chunks that are read in one hop to a thread. A store that learns their lengths by reading them reads 256 KiB of each."""
_ROOM = 4 << 20
"""Bytes that GetChunks keeps while its client is slow; with less room, it reads a few chunks at a time."""
_FEW = 16
"""A part of what is read at once, where there is no room."""
_PUTS_AT_ONCE = 8
"""Messages of chunks that are decompressed and stored at a time: 128 MiB of content, if all are as large as may be."""

_BLOBS_AT_ONCE = 256
_LISTED_AT_ONCE = 32 << 20
"""Blobs, and bytes of them, whose chunks are listed at once: 280,000 chunks, 60 MB of objects, if they are as small as may be."""
_LISTINGS = 2
"""Listings at a time."""
_ROWS = _MESSAGE // 48
"""Chunks that fill a message of lists."""
_PACKED_HERE = 4096
"""Chunks of a list that is packed on the event loop, in some 3 ms."""
_LISTS = 128 << 20
"""Bytes of lists that a worker keeps: while clients take them, and until clients have sent their end. The longest has 50 MB."""
_LISTS_STALL = 60.0
"""Seconds that such a client may do nothing."""
_LIST_MESSAGE = 4 << 20
"""Bytes of a message of Assemble: 100,000 chunks."""
_ASSEMBLED_AT_ONCE = 8
"""Blobs of a message that are assembled at once."""
_MAX_BYTES = 1 << 40
"""Bytes of all blobs of a call of Assemble: they are read. A list of a few MiB may name one large chunk over and over."""


def granular_methods(granular: Granular, max_message: int) -> dict[str, Method]:
    """The calls by path. `max_message` bounds a message of directories in bytes."""
    putting = asyncio.Semaphore(_PUTS_AT_ONCE)

    async def missing_directories(digests: list[Digest], _call: Call) -> bytes:
        return encode_digests(await granular.missing_directories(digests))

    async def get_directories(digests: list[Digest], _call: Call) -> AsyncGenerator[bytes, None]:
        batch: list[bytes] = []
        size = 0
        with READ_AHEAD.room(_ROOM) as has_room:
            at_once = _DIRECTORIES_AT_ONCE if has_room else 1
            for start in range(0, len(digests), at_once):
                for directory in await granular.get_directories(digests[start : start + at_once]):
                    if batch and size + len(directory.encoded) > _MESSAGE:
                        yield encode_blobs(batch)
                        batch, size = [], 0
                    batch.append(directory.encoded)
                    size += len(directory.encoded)
        if batch:
            yield encode_blobs(batch)

    async def put_directories(directories: list[Directory], _call: Call) -> bytes:
        await granular.put_directories(directories)
        return b""

    async def get_chunks(wanted: ChunkTable, _call: Call) -> AsyncGenerator[Answer, None]:
        with READ_AHEAD.room(_ROOM) as has_room:
            less = 1 if has_room else _FEW
            for rows in filling(wanted, _length_of, size=_MESSAGE // less, count=_CHUNKS_AT_ONCE // less):
                yield encode_chunks(await granular.get_chunks([_chunk_to_read(*row) for row in rows]))

    async def get_chunk(message: bytes, _call: Call) -> bytes:
        digest, length = decode_get_chunk(message)
        return b"".join(encode_chunks(await granular.get_chunks([_chunk_to_read(digest.raw, length, length)])))

    async def put_chunks(chunks: list[StoredChunk], _call: Call) -> bytes:
        async with putting:
            await granular.put_chunks(chunks)
        return b""

    methods: dict[str, Method] = {
        f"/{BULK_SERVICE}/MissingDirectories": Unary(missing_directories, _DIGESTS),
        f"/{BULK_SERVICE}/GetDirectories": ServerStreaming(get_directories, _DIGESTS),
        f"/{BULK_SERVICE}/PutDirectories": Unary(
            put_directories, Takes(max_message=max_message, decode=_decode_directories, writes=True)
        ),
        f"/{BULK_SERVICE}/GetChunks": ServerStreaming(get_chunks, _SIZED_DIGESTS),
        f"/{BULK_SERVICE}/GetChunk": Unary(get_chunk, Takes(immutable=True)),
        f"/{BULK_SERVICE}/PutChunks": Unary(put_chunks, Takes(max_message=MAX_CHUNK + _AROUND, decode=_decode_chunks, writes=True)),
    }
    return methods | _list_methods(granular)


def _list_methods(granular: Granular) -> dict[str, Method]:
    """The calls about lists of chunks."""
    listing = asyncio.Semaphore(_LISTINGS)
    kept = Budget(_LISTS, stall=_LISTS_STALL)

    async def list_chunks(wanted: ChunkTable, call: Call) -> AsyncGenerator[bytes, None]:
        with kept.place(call.client) as place:
            for rows in filling(wanted, _length_of, size=_LISTED_AT_ONCE, count=_BLOBS_AT_ONCE):
                blobs = [Chunk(Digest(digest), size) for digest, size, _ in rows]
                async with listing:
                    lists = await _packed(blobs, await granular.list_chunks(blobs))
                size = sum(len(each.chunks) for each in lists) * 48
                if size > SMALL:
                    await place.hold(size)
                for some in filling(lists, lambda each: len(each.chunks), size=_ROWS):
                    place.waits()
                    yield encode_chunk_lists(some)
                    place.works()
                place.hold_at_most(0)

    async def assemble(messages: AsyncIterator[list[tuple[ChunkList, int]]], call: Call) -> bytes:
        gathered = _Gathered()
        with kept.place(call.client) as place:
            async for lists in messages:
                place.works()
                # One after the other, where more is to be read: a message of a MiB may name gigabytes of lists.
                for some in [lists] if all(each.listed is None for each, _ in lists) else [[each] for each in lists]:
                    told = [await found(*each) for each in some]
                    await each_at_once(assembled, gathered.whole(told), _ASSEMBLED_AT_ONCE)
                if gathered.kept > SMALL:
                    await place.hold(gathered.kept)
                    place.waits()
                else:
                    place.hold_at_most(0)
        gathered.finish()
        return b""

    async def found(chunks: ChunkList, size: int) -> tuple[ChunkList, int]:
        """A list itself, where it stands in a chunk that was put."""
        if chunks.listed is None:
            return chunks, size
        digest, listed_size = chunks.listed
        [stored] = await granular.get_chunks([_chunk_to_read(digest.raw, listed_size, listed_size)])
        [content] = await asyncio.to_thread(checked_contents, [stored], MAX_CHUNK)
        part = await asyncio.to_thread(lambda: decode_chunk_list(bytes(content)))
        if part.blob != chunks.blob or part.listed is not None:
            raise InvalidError(f"chunk {digest} is no list of the chunks of {chunks.blob}")
        return replace(part, more=chunks.more), _size_of_chunks(part)

    async def assembled(whole: ChunkList) -> None:
        await granular.assemble(whole.blob, listed_chunks(whole.chunks))

    return {
        f"/{BULK_SERVICE}/ListChunks": ServerStreaming(list_chunks, _SIZED_DIGESTS),
        f"/{BULK_SERVICE}/Assemble": client_streaming(
            assemble, Takes(max_message=_LIST_MESSAGE, decode=_decode_lists, writes=True)
        ),
    }


class _Gathered:
    """The lists of a call of Assemble: counted, and those that came in parts put together."""

    def __init__(self) -> None:
        self._parts: list[ChunkList] = []
        self._size = 0
        """Bytes of the blob whose list is under way."""
        self._chunks = self._bytes = 0

    @property
    def kept(self) -> int:
        """Bytes of a list that has not ended yet."""
        return sum(len(part.chunks) for part in self._parts) * 48

    def whole(self, lists: Iterable[tuple[ChunkList, int]]) -> list[ChunkList]:
        """The lists that have ended with these, each given with the size of its chunks.

        Raises:
            InvalidError: a list goes on with that of another blob, or has no chunks, or too many small ones.
            ExhaustedError: they are more than a call takes.
        """
        ended: list[ChunkList] = []
        for part, size in lists:
            self._chunks += len(part.chunks)
            self._bytes += size
            if self._chunks > MAX_CHUNKS or self._bytes > _MAX_BYTES:
                raise ExhaustedError(f"a call takes lists of at most {MAX_CHUNKS} chunks and a TiB; send the rest in another call")
            if self._parts and self._parts[0].blob != part.blob:
                raise InvalidError(f"the list of {self._parts[0].blob} has not ended, but one of {part.blob} follows")
            if len(part.chunks) or not self._parts:
                self._parts.append(part)
            self._size += size
            if not part.more:
                tables = [each.chunks for each in self._parts]
                check_list(part.blob, sum(map(len, tables)), self._size)
                ended.append(ChunkList(part.blob, ChunkTable.joined(tables)))
                self._parts, self._size = [], 0
        return ended

    def finish(self) -> None:
        """
        Raises:
            InvalidError: a list has not ended.
        """
        if self._parts:
            raise InvalidError(f"the list of {self._parts[0].blob} is cut short")


def _length_of(row: Row) -> int:
    """The bytes of a chunk, or of a blob."""
    return row[1]


def _chunk_to_read(digest: bytes, length: int, _stored: int) -> Frame:
    if length > MAX_CHUNK:
        raise InvalidError(f"chunk b3:{digest.hex()} is said to have {length} bytes; a chunk has at most {MAX_CHUNK}")
    return Frame(digest, length, length)


async def _packed(blobs: Sequence[Chunk], found: Sequence[Sequence[Frame]]) -> list[ChunkList]:
    """The lists of some blobs, long ones in parts."""

    def packed() -> list[ChunkList]:
        return [
            ChunkList(blob.digest, ChunkTable.of(frames[at : at + _ROWS]), more=at + _ROWS < len(frames))
            for blob, frames in zip(blobs, found, strict=True)
            for at in range(0, len(frames), _ROWS)
        ]

    return packed() if sum(map(len, found)) <= _PACKED_HERE else await asyncio.to_thread(packed)


def _decode_directories(message: bytes) -> list[Directory]:
    return [Directory.received(each) for each in decode_blobs(message)]


def _decode_chunks(message: bytes) -> list[StoredChunk]:
    return [StoredChunk(*chunk) for chunk in decode_chunks(message)]


def _decode_lists(message: bytes) -> list[tuple[ChunkList, int]]:
    """The lists, and the bytes of the chunks of each.

    Raises:
        InvalidError: a chunk is empty, or larger than MAX_CHUNK.
    """
    return [(each, _size_of_chunks(each)) for each in decode_chunk_lists(message)]


def _size_of_chunks(chunks: ChunkList) -> int:
    size = 0
    for digest, length, _ in chunks.chunks:
        if not 0 < length <= MAX_CHUNK:
            raise InvalidError(f"chunk b3:{digest.hex()} is said to have {length} bytes; a chunk has 1 to {MAX_CHUNK}")
        size += length
    return size
