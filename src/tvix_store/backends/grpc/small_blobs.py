"""Many small blobs: in few calls where the server has our BulkService, else in many calls at once."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Protocol

from tvix_store.backends.grpc.connection import AROUND, DIGESTS_A_CALL, Connection
from tvix_store.backends.grpc.contents import MESSAGE
from tvix_store.backends.grpc.received import decoding
from tvix_store.backends.grpc.single_blobs import SingleBlobs
from tvix_store.concurrency.each_at_once import each_at_once, missing_at_once
from tvix_store.errors import CorruptError, ExhaustedError, InvalidError, NotFoundError
from tvix_store.model.digest import Digest
from tvix_store.protocol.bulk import decode_blobs, decode_digests, encode_blobs, encode_digests
from tvix_store.protocol.dialects import BULK_SERVICE
from tvix_store.services.batches import filling, parts
from tvix_store.services.blobs import SMALL_BLOB

_UNASKED = 64 * 1024
"""Bytes that are sent without asking whether the server lacks them: the question would take as long."""


class SmallBlobs(Protocol):
    """The part of BlobService that is about batches."""

    async def missing(self, digests: Sequence[Digest]) -> set[Digest]: ...
    async def put_many(self, blobs: Sequence[bytes]) -> list[Digest]: ...
    async def get_many(self, digests: Sequence[Digest]) -> list[bytes | None]: ...


class BulkBlobs:
    """SmallBlobs over BulkService."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def missing(self, digests: Sequence[Digest]) -> set[Digest]:
        absent: set[Digest] = set()
        for some in parts(digests, DIGESTS_A_CALL):
            answer = await self._connection.call(f"/{BULK_SERVICE}/Missing", encode_digests(some), ("blob", some[0]))
            with decoding(self._connection.server):
                absent.update(decode_digests(answer))
        return absent.intersection(digests)

    async def put_many(self, blobs: Sequence[bytes]) -> list[Digest]:
        digests = _digests_of_small(blobs)
        content = dict(zip(digests, blobs, strict=True))
        wanted = list(content)
        if sum(map(len, content.values())) > _UNASKED:
            absent = await self.missing(wanted)
            wanted = [digest for digest in wanted if digest in absent]
        most = self._connection.most_sent
        for some in filling(wanted, lambda digest: len(content[digest]) + AROUND, size=most, count=DIGESTS_A_CALL):
            await self._put([(digest, content[digest]) for digest in some])
        return digests

    async def get_many(self, digests: Sequence[Digest]) -> list[bytes | None]:
        blobs: list[bytes | None] = []
        for some in parts(digests, DIGESTS_A_CALL):
            try:
                blobs += await self._get(some)
            except NotFoundError:  # it tells of one; the rest is asked for again
                absent = await self.missing(some)
                there = [digest for digest in some if digest not in absent]
                found = dict(zip(there, await self._get(there), strict=True)) if there else {}
                blobs += map(found.get, some)
        return blobs

    async def _put(self, contents: Sequence[tuple[Digest, bytes]]) -> None:
        async def messages() -> AsyncGenerator[bytes, None]:
            for some in filling((blob for _, blob in contents), len, size=MESSAGE):
                yield encode_blobs(some)

        answer = await self._connection.send(f"/{BULK_SERVICE}/PutMany", messages, ("blob", "that is being put"))
        with decoding(self._connection.server):
            stored = decode_digests(answer)
        if stored != [digest for digest, _ in contents]:
            raise CorruptError(f"{self._connection.server}: the server did not store the blobs that it was sent")

    async def _get(self, digests: Sequence[Digest]) -> list[bytes]:
        server = self._connection.server
        blobs: list[bytes] = []
        calling = self._connection.receive(f"/{BULK_SERVICE}/GetMany", encode_digests(digests), ("blob", digests[0]))
        async with aclosing(calling) as messages:
            async for message in messages:
                with decoding(server):
                    received = decode_blobs(message)
                for blob in received:
                    if len(blobs) == len(digests):
                        raise CorruptError(f"{server}: the server sent more blobs than it was asked for")
                    if Digest.of(blob) != digests[len(blobs)]:
                        raise CorruptError(f"{server}: the server sent other bytes for blob {digests[len(blobs)]}")
                    blobs.append(blob)
        if len(blobs) != len(digests):
            raise CorruptError(f"{server}: the server left out blob {digests[len(blobs)]}")
        return blobs


class EachBlob:
    """SmallBlobs by calls for each blob, many at once."""

    def __init__(self, single: SingleBlobs) -> None:
        self._single = single

    async def missing(self, digests: Sequence[Digest]) -> set[Digest]:
        return await missing_at_once(self._single.is_there, digests)

    async def put_many(self, blobs: Sequence[bytes]) -> list[Digest]:
        digests = _digests_of_small(blobs)
        content = dict(zip(digests, blobs, strict=True))

        async def put(digest: Digest) -> None:
            await self._single.put(digest, content[digest])

        await each_at_once(put, list(content))
        return digests

    async def get_many(self, digests: Sequence[Digest]) -> list[bytes | None]:
        return await each_at_once(self._get, digests)

    async def _get(self, digest: Digest) -> bytes | None:
        pieces: list[bytes] = []
        size = 0
        try:
            async with aclosing(self._single.read(digest)) as blob:
                async for piece in blob:
                    pieces.append(piece)
                    size += len(piece)
                    if size > SMALL_BLOB:
                        raise ExhaustedError(
                            f"blob {digest} has more than {SMALL_BLOB} bytes, too many for get_many; read it as a stream"
                        )
        except NotFoundError:
            return None
        return b"".join(pieces)


def _digests_of_small(blobs: Sequence[bytes]) -> list[Digest]:
    for blob in blobs:
        if len(blob) > SMALL_BLOB:
            raise InvalidError(f"put_many takes blobs of at most {SMALL_BLOB} bytes, got one of {len(blob)}")
    return [Digest.of(blob) for blob in blobs]
