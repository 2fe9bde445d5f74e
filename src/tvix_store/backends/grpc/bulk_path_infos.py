"""BulkPathInfos: path infos of a server that has all calls of our BulkService, by the thousand."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing

from tvix_store.backends.grpc.channel import THOROUGH
from tvix_store.backends.grpc.connection import Connection
from tvix_store.backends.grpc.received import decoding
from tvix_store.errors import CorruptError, ExhaustedError
from tvix_store.model import nixbase32
from tvix_store.model.path_info import PathInfo
from tvix_store.model.store_path import StorePath
from tvix_store.protocol.bulk import decode_blobs, decode_store_paths, encode_blobs, encode_output_hashes
from tvix_store.protocol.dialects import BULK_SERVICE
from tvix_store.services.batches import parts

_A_CALL = 4096
"""Output hashes in a call."""
_MOST = 64 << 20
"""Bytes of the path infos that are taken in one call. Most have less than a KiB, but one may have 4 MiB."""


class BulkPathInfos:
    """The part of PathInfoService that is about many paths."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def get_many(self, output_hashes: Sequence[bytes]) -> dict[bytes, PathInfo]:
        found: dict[bytes, PathInfo] = {}
        for some in parts(list(dict.fromkeys(output_hashes)), _A_CALL):
            asked = set(some)
            size = 0
            request, subject = encode_output_hashes(some), ("path info", nixbase32.encode(some[0]))
            async with aclosing(self._connection.receive(f"/{BULK_SERVICE}/GetPathInfos", request, subject)) as messages:
                async for message in messages:
                    size += len(message)
                    if size > _MOST:
                        raise ExhaustedError(
                            f"{self._connection.server}: the path infos have more than {_MOST} bytes; name fewer paths"
                        )
                    with decoding(self._connection.server):
                        received = [PathInfo.decode(each) for each in decode_blobs(message)]
                    if not received:  # of these, there may be no end
                        raise CorruptError(f"{self._connection.server}: the server sent a message with nothing in it")
                    for path_info in received:
                        self._take(path_info.store_path, asked)
                        found[path_info.store_path.output_hash] = path_info
        return found

    async def put_many(self, path_infos: Sequence[PathInfo]) -> list[PathInfo]:
        """The stored path infos of those that are put, in one message, in order.

        Raises: as `PathInfoService.put`, for any of them; others may have been put.
        """
        answer = await self._connection.call(
            f"/{BULK_SERVICE}/PutPathInfos",
            encode_blobs(each.encoded for each in path_infos),
            ("path info", path_infos[0].store_path),
            seconds=THOROUGH,
        )
        with decoding(self._connection.server):
            return [PathInfo.decode(each) for each in decode_blobs(answer)]

    async def existing(self, output_hashes: Sequence[bytes]) -> dict[bytes, StorePath]:
        found: dict[bytes, StorePath] = {}
        for some in parts(list(dict.fromkeys(output_hashes)), _A_CALL):
            asked = set(some)
            answer = await self._connection.call(
                f"/{BULK_SERVICE}/ExistingPaths",
                encode_output_hashes(some),
                ("path info", nixbase32.encode(some[0])),
                seconds=THOROUGH,  # it may have to ask other caches
            )
            with decoding(self._connection.server):
                paths = decode_store_paths(answer)
            for path in paths:
                self._take(path, asked)
                found[path.output_hash] = path
        return found

    def _take(self, path: StorePath, asked: set[bytes]) -> None:
        if path.output_hash not in asked:
            raise CorruptError(f"{self._connection.server}: the server sent {path}, for which it was not asked")
        asked.remove(path.output_hash)
