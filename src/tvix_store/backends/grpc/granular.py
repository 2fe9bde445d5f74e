"""BulkGranular: directories and chunks of a server that has all calls of our BulkService."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import TypeVar

from tvix_store.backends.grpc.channel import THOROUGH
from tvix_store.backends.grpc.connection import AROUND, DIGESTS_A_CALL, Connection
from tvix_store.backends.grpc.contents import MESSAGE
from tvix_store.backends.grpc.received import decoding
from tvix_store.backends.grpc.small_blobs import SmallBlobs
from tvix_store.compression.chunk_frames import compressed_chunks
from tvix_store.concurrency.each_at_once import each_at_once
from tvix_store.errors import CorruptError, ExhaustedError, InvalidError
from tvix_store.model.chunk_table import ChunkTable
from tvix_store.model.digest import Digest
from tvix_store.model.directory import Directory
from tvix_store.protocol.bulk import decode_blobs, decode_digests, encode_blobs, encode_digests
from tvix_store.protocol.chunk_tables import (
    MAX_CHUNKS,
    MAX_CONTENT,
    ChunkList,
    decode_chunk_lists,
    decode_chunks,
    encode_chunk_list,
    encode_chunk_lists,
    encode_chunks,
    encode_get_chunk,
    encode_sized_digests,
)
from tvix_store.protocol.dialects import BULK_SERVICE
from tvix_store.services.batches import filling, parts
from tvix_store.services.blobs import Chunk
from tvix_store.services.frames import Frame
from tvix_store.services.granular import MAX_CHUNK, StoredChunk, check_directories
from tvix_store.services.listed import listed_frames

T = TypeVar("T")

_LISTED_A_CALL = 16 << 30
"""Bytes of the blobs whose chunks are asked for in one call. At 16 KiB, the smallest average, it is as many as a call may list."""
_ROW = 40
"""Bytes of a chunk in a list that is sent."""
_CHUNK_ROW = 48
"""Bytes of a chunk in a message of chunks, beside what is stored of it."""
_CACHED = 32 << 10
"""Stored bytes of a chunk from which a call of its own costs little beside its bytes."""
_CALLS_AT_ONCE = 9
"""One for small chunks, and 8 for large ones."""
_AROUND_LIST = 4096
"""Bytes around the rows of a list in a request."""
_LISTED_CHUNK = 256 << 10
"""Bytes of a list that is put as a chunk."""
_PUT_AT_ONCE = 4
"""Messages of chunks that are on their way to the server."""


class BulkGranular:
    """A Granular over BulkService. `blobs` are those of the same server.

    A put of directories of more than a message is one of several calls: where one fails, those before it stay.
    """

    def __init__(self, connection: Connection, blobs: SmallBlobs) -> None:
        self._connection = connection
        self._blobs = blobs

    async def missing_directories(self, digests: Sequence[Digest]) -> set[Digest]:
        absent: set[Digest] = set()
        for some in parts(digests, DIGESTS_A_CALL):
            answer = await self._connection.call(_path("MissingDirectories"), encode_digests(some), ("directory", some[0]))
            with decoding(self._connection.server):
                absent.update(decode_digests(answer))
        return absent.intersection(digests)

    async def get_directories(self, digests: Sequence[Digest]) -> list[Directory]:
        directories: list[Directory] = []
        size = 0
        for some in parts(digests, DIGESTS_A_CALL):
            wanted = iter(some)
            received = self._received("GetDirectories", encode_digests(some), ("directory", some[0]), decode_blobs)
            async with aclosing(received) as messages:
                async for message in messages:
                    size += sum(map(len, message))
                    check_directories(size)
                    for encoded in message:
                        with decoding(self._connection.server):
                            directory = Directory.decode(encoded)
                        self._check("directory", directory.digest, next(wanted, None))
                        directories.append(directory)
            self._check_end("directory", next(wanted, None))
        return directories

    async def put_directories(self, directories: Sequence[Directory]) -> None:
        most = self._connection.most_in_message
        for some in filling(directories, lambda each: len(each.encoded) + AROUND, size=most, count=DIGESTS_A_CALL):
            message = encode_blobs(directory.encoded for directory in some)
            await self._connection.call(_path("PutDirectories"), message, ("directory", "that is being put"), seconds=THOROUGH)

    async def list_chunks(self, blobs: Sequence[Chunk]) -> list[Sequence[Frame]]:
        lists: list[Sequence[Frame]] = []
        for some in filling(blobs, lambda blob: blob.size, size=_LISTED_A_CALL, count=DIGESTS_A_CALL):
            lists += map(listed_frames, await self._listed(some))
        return lists

    async def get_chunks(self, chunks: Sequence[Frame]) -> list[StoredChunk]:
        """As `Granular.get_chunks`. Where caches may stand on the way, a large chunk has a call of its own: they can answer it."""
        if not self._connection.passes_caches:
            return await self._got(chunks)
        small = [chunk for chunk in chunks if chunk.stored < _CACHED]
        calls = [small, *([chunk] for chunk in chunks if chunk.stored >= _CACHED)]

        async def got(wanted: list[Frame]) -> list[StoredChunk]:
            return await self._got(wanted) if wanted is small else [await self._got_alone(wanted[0])]

        answers = await each_at_once(got, calls, _CALLS_AT_ONCE)
        by_digest = {chunk.digest: chunk for answer in answers for chunk in answer}
        return [by_digest[chunk.digest] for chunk in chunks]

    async def _got_alone(self, chunk: Frame) -> StoredChunk:
        message = encode_get_chunk(Digest(chunk.digest), chunk.length)
        answer = await self._connection.call(_path("GetChunk"), message, ("blob", Digest(chunk.digest)), immutable=True)
        with decoding(self._connection.server):
            got = decode_chunks(answer)
        if len(got) != 1:
            raise CorruptError(f"{self._connection.server}: the server sent {len(got)} chunks for one")
        self._check_chunk(got[0], chunk)
        return StoredChunk(*got[0])

    async def _got(self, chunks: Sequence[Frame]) -> list[StoredChunk]:
        got: list[StoredChunk] = []
        for some in parts(chunks, DIGESTS_A_CALL):
            wanted = iter(some)
            received = self._received("GetChunks", _sized(some), ("blob", Digest(some[0].digest)), decode_chunks)
            async with aclosing(received) as messages:
                async for message in messages:
                    for chunk in message:
                        self._check_chunk(chunk, next(wanted, None))
                        got.append(StoredChunk(*chunk))
            left = next(wanted, None)
            self._check_end("chunk", left and Digest(left.digest))
        return got

    async def missing_chunks(self, digests: Sequence[Digest]) -> set[Digest]:
        return await self._blobs.missing(digests)

    async def put_chunks(self, chunks: Sequence[StoredChunk]) -> None:
        """As `Granular.put_chunks`. What comes as it is, and is worth it, is compressed for the way."""
        for chunk in chunks:
            if chunk.length > MAX_CHUNK:
                raise InvalidError(f"chunk b3:{chunk.digest.hex()} has {chunk.length} bytes; a chunk has at most {MAX_CHUNK}")
        if any(len(chunk.stored) == chunk.length for chunk in chunks):
            chunks = [StoredChunk(*chunk) for chunk in await asyncio.to_thread(compressed_chunks, chunks)]
        most = self._connection.most_in_message
        messages: list[list[StoredChunk]] = []
        for some in filling(chunks, lambda chunk: chunk.length, size=MAX_CONTENT, count=DIGESTS_A_CALL):
            messages += filling(some, lambda chunk: len(chunk.stored) + _CHUNK_ROW, size=most)
        await each_at_once(self._put_chunks, messages, _PUT_AT_ONCE)

    async def assemble(self, digest: Digest, chunks: Sequence[Chunk]) -> None:
        if len(chunks) > MAX_CHUNKS:
            raise ExhaustedError(f"blob {digest} has {len(chunks)} chunks; a list of at most {MAX_CHUNKS} can be sent")
        most = self._connection.most_sent
        is_too_long = most is not None and len(chunks) * _ROW > most - _AROUND_LIST
        rows = (_LISTED_CHUNK if is_too_long else MESSAGE) // _ROW
        parts_of_list = [(at, chunks[at : at + rows]) for at in range(0, len(chunks), rows)]

        def listed(at: int, some: Sequence[Chunk]) -> ChunkList:
            table = ChunkTable.of_sized((chunk.digest.raw, chunk.size) for chunk in some)
            return ChunkList(digest, table, more=at + rows < len(chunks))

        async def messages() -> AsyncGenerator[bytes, None]:
            for at, some in parts_of_list:
                part = listed(at, some)
                yield encode_chunk_lists([await self._put_list(part) if is_too_long else part])

        await self._connection.send(_path("Assemble"), messages, ("blob", digest))

    async def _put_list(self, part: ChunkList) -> ChunkList:
        """Put a part of a list as a chunk. Return what names it: a request may be too short for the list."""
        content = encode_chunk_list(part)
        chunk = StoredChunk(Digest.of(content).raw, len(content), content)
        await self.put_chunks([chunk])
        return ChunkList(part.blob, ChunkTable(), part.more, (Digest(chunk.digest), chunk.length))

    async def _put_chunks(self, chunks: Sequence[StoredChunk]) -> None:
        message = b"".join(encode_chunks(chunks))
        await self._connection.call(_path("PutChunks"), message, ("blob", "that is being put"), seconds=THOROUGH)

    async def _listed(self, blobs: Sequence[Chunk]) -> list[ChunkTable]:
        """The list of each blob, in one call."""
        server = self._connection.server
        lists: list[ChunkTable] = []
        under_way: list[ChunkTable] = []
        total = 0
        wanted = ChunkTable.of_sized((blob.digest.raw, blob.size) for blob in blobs)
        received = self._received("ListChunks", encode_sized_digests(wanted), ("blob", blobs[0].digest), decode_chunk_lists)
        async with aclosing(received) as messages:
            async for message in messages:
                for part in message:
                    if len(lists) == len(blobs):
                        self._check("list of chunks of", part.blob, None)
                    blob = blobs[len(lists)]
                    self._check("list of chunks of", part.blob, blob.digest)
                    total += len(part.chunks)
                    if total > MAX_CHUNKS:
                        raise ExhaustedError(f"{server}: the server lists more than {MAX_CHUNKS} chunks, too many for one call")
                    under_way.append(part.chunks)
                    if part.more and part.chunks:
                        continue
                    chunks = ChunkTable.joined(under_way)
                    under_way = []
                    if chunks.size != blob.size or not chunks:
                        raise CorruptError(f"{server}: the server lists chunks for blob {blob.digest} that have not its size")
                    lists.append(chunks)
        self._check_end("list of chunks of", None if len(lists) == len(blobs) else blobs[len(lists)].digest)
        return lists

    async def _received(
        self, call: str, request: bytes, subject: tuple[str, object], decode: Callable[[bytes], T]
    ) -> AsyncGenerator[T, None]:
        async with aclosing(self._connection.receive(_path(call), request, subject)) as messages:
            async for message in messages:
                with decoding(self._connection.server):
                    decoded = decode(message)
                if not decoded:  # of these, there may be no end
                    raise CorruptError(f"{self._connection.server}: the server sent a message with nothing in it")
                yield decoded

    def _check_chunk(self, chunk: tuple[bytes, int, bytes | memoryview], asked: Frame | None) -> None:
        if asked is None or chunk[:2] != asked[:2] or len(chunk[2]) > asked.length:
            self._check("chunk", Digest(chunk[0]), None)

    def _check(self, kind: str, sent: Digest, wanted: Digest | None) -> None:
        if sent != wanted:
            raise CorruptError(f"{self._connection.server}: the server sent {kind} {sent}, for which it was not asked")

    def _check_end(self, kind: str, left: Digest | None) -> None:
        if left is not None:
            raise CorruptError(f"{self._connection.server}: the server left out {kind} {left}")


def _path(call: str) -> str:
    return f"/{BULK_SERVICE}/{call}"


def _sized(chunks: Sequence[Frame]) -> bytes:
    return encode_sized_digests(ChunkTable.of_sized((chunk.digest, chunk.length) for chunk in chunks))
