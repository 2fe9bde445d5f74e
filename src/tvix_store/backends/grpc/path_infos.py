"""GrpcPathInfos and GrpcNar: the PathInfoService of a server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import aclosing

from tvix_store.backends.grpc.bulk_path_infos import BulkPathInfos
from tvix_store.backends.grpc.channel import THOROUGH
from tvix_store.backends.grpc.connection import AROUND, Connection
from tvix_store.backends.grpc.received import decoding
from tvix_store.backends.grpc.statuses import Subject
from tvix_store.concurrency.coalesced import Coalesced
from tvix_store.concurrency.each_at_once import each_at_once
from tvix_store.errors import ConflictError, CorruptError, IncompleteError, NotFoundError, UnsupportedError
from tvix_store.model import nixbase32
from tvix_store.model.nodes import Node, encode_node
from tvix_store.model.path_info import NarFacts, PathInfo
from tvix_store.model.store_path import StorePath
from tvix_store.model.trust import NOBODY, Trust
from tvix_store.protocol.bulk import MAX_PUT_PATHS
from tvix_store.protocol.dialects import Dialect
from tvix_store.protocol.path_infos import decode_nar_facts, encode_get_path_info
from tvix_store.services.batches import filling

_PUT_BYTES, _PUT_PATHS = 512 << 10, 32
"""Bytes of path infos, and their number, in one call. The server reads the content of each: several calls reach several workers."""
_PUTS_AT_ONCE = 4
"""Calls at a time. Each waits for a sync of the server's disk; what comes meanwhile travels together."""
MOST_FOR_NOTHING = 10_000
"""Path infos that a list reads, and leaves out, before the first one that is wanted: a second or two."""
_PUT_TOGETHER = 1 << 20
"""Bytes of path infos that may refer to each other, in one call."""


def _size(path_info: PathInfo) -> int:
    return len(path_info.encoded) + AROUND


def _weight(path_info: PathInfo) -> int:
    return max(_size(path_info), _PUT_BYTES // _PUT_PATHS)


class GrpcPathInfos:
    """A PathInfoService over a connection, in a dialect. Path infos are listed in the order of the server.

    `bulk` gets many at once, where the server has calls for that, and `puts_many` says whether it puts many too. Then those that
    are put at the same time travel together.
    """

    def __init__(
        self, connection: Connection, dialect: Dialect, bulk: BulkPathInfos | None = None, *, puts_many: bool = False
    ) -> None:
        self._connection = connection
        self._dialect = dialect
        self._bulk = bulk
        self._puts = (
            Coalesced(self._put_some, most=_PUT_BYTES, at_once=_PUTS_AT_ONCE, weigh=_weight)
            if bulk is not None and puts_many
            else None
        )

    async def close(self) -> None:
        """End what is under way."""
        if self._puts is not None:
            await self._puts.close()

    async def get(self, output_hash: bytes) -> PathInfo | None:
        subject: Subject = ("path info", nixbase32.encode(output_hash))
        try:
            answer = await self._connection.call(self._dialect.path_info("Get"), encode_get_path_info(output_hash), subject)
        except NotFoundError:
            return None
        path_info = self._decode(answer)
        if path_info.store_path.output_hash != output_hash:
            raise CorruptError(f"{self._connection.server}: the server sent {path_info.store_path} for path info {subject[1]}")
        return path_info

    async def get_many(self, output_hashes: Sequence[bytes]) -> dict[bytes, PathInfo]:
        """As `PathInfoService.get_many`. No dialect has such a call: without our own, each path info is asked for, many at once."""
        if self._bulk is not None:
            return await self._bulk.get_many(output_hashes)
        found = await each_at_once(self.get, list(dict.fromkeys(output_hashes)))
        return {each.store_path.output_hash: each for each in found if each is not None}

    async def existing(self, output_hashes: Sequence[bytes]) -> dict[bytes, StorePath]:
        """As `PathInfoService.existing`. Without our own call for that, a server before caches may fetch a path."""
        if self._bulk is not None:
            return await self._bulk.existing(output_hashes)
        return {output_hash: found.store_path for output_hash, found in (await self.get_many(output_hashes)).items()}

    async def put(
        self, path_info: PathInfo, trust: Trust = NOBODY, *, requires: Collection[StorePath] = (), calculated: bool = False
    ) -> PathInfo:
        """As `PathInfoService.put`.

        Raises:
            IncompleteError: the server has not all content that the path info reaches.
            InvalidError: the server says that the path info is not true of the content.
        """
        if self._puts is not None:
            [stored] = await self._puts([path_info])
        else:
            stored = await self._put(path_info)
        self._check_stored(path_info, stored)
        return stored

    async def put_many(self, path_infos: Sequence[PathInfo]) -> list[PathInfo]:
        """As `ManyPathInfos.put_many`, in one call for each MiB."""
        all_stored: list[PathInfo] = []
        for some in filling(path_infos, _size, size=_PUT_TOGETHER, count=MAX_PUT_PATHS):
            all_stored += await self._put_some(some)
        for path_info, stored in zip(path_infos, all_stored, strict=True):
            self._check_stored(path_info, stored)
        return all_stored

    def _check_stored(self, path_info: PathInfo, stored: PathInfo) -> None:
        path = path_info.store_path
        if stored.store_path != path or stored.nar != path_info.nar:
            raise CorruptError(f"{self._connection.server}: the server was sent {path}, but says that it stored something else")

    async def _put_some(self, path_infos: Sequence[PathInfo]) -> list[PathInfo]:
        if len(path_infos) == 1 or self._bulk is None:
            return [await self._put(path_infos[0])]
        stored = await self._bulk.put_many(path_infos)
        if len(stored) != len(path_infos):
            raise CorruptError(f"{self._connection.server}: the server sent {len(stored)} path infos for {len(path_infos)}")
        return stored

    async def _put(self, path_info: PathInfo) -> PathInfo:
        path = path_info.store_path
        try:
            answer = await self._connection.call(
                self._dialect.path_info("Put"), path_info.encoded, ("path info", path), seconds=THOROUGH
            )
        except IncompleteError as error:
            # One status stands for both: content is missing, and the path is there, otherwise.
            known = await self.get(path.output_hash)
            if known is not None and known.difference(path_info):
                raise ConflictError(str(error)) from error
            raise
        return self._decode(answer)

    async def list(self, after: bytes = b"") -> AsyncIterator[PathInfo]:
        """As `PathInfoService.list`. The call begins with the first path info, so what is before `after` is read for nothing.

        Raises:
            UnsupportedError: too many are before `after`.
        """
        for_nothing = 0
        async with aclosing(self._connection.receive(self._dialect.path_info("List"), b"", ("path info", "list"))) as messages:
            async for message in messages:
                path_info = self._decode(message)
                if path_info.store_path.output_hash > after:
                    yield path_info
                    continue
                for_nothing += 1
                if for_nothing > MOST_FOR_NOTHING:
                    raise UnsupportedError(
                        f"{self._connection.server} lists its store paths from the first one on, and more than "
                        f"{MOST_FOR_NOTHING} come before the ones that are asked for; list all of them"
                    )

    def _decode(self, message: bytes) -> PathInfo:
        with decoding(self._connection.server):
            return PathInfo.decode(message)


class GrpcNar:
    """A NarService that asks the server."""

    def __init__(self, connection: Connection, dialect: Dialect) -> None:
        self._connection = connection
        self._dialect = dialect

    async def calculate(self, node: Node) -> NarFacts:
        # The node has no name: snix refuses one.
        request = encode_node(b"", node)
        subject: Subject = ("content of", getattr(node, "digest", "a symlink"))
        answer = await self._connection.call(self._dialect.path_info("CalculateNAR"), request, subject, seconds=THOROUGH)
        with decoding(self._connection.server):
            return decode_nar_facts(answer)
