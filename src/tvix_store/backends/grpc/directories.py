"""GrpcDirectories: the DirectoryService of a server."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator
from contextlib import aclosing

from tvix_store.backends.grpc.connection import AROUND, Connection
from tvix_store.backends.grpc.granular import BulkGranular
from tvix_store.backends.grpc.received import check_stored, decoding
from tvix_store.errors import CorruptError, NotFoundError
from tvix_store.model.digest import Digest
from tvix_store.model.directory import Directory
from tvix_store.model.directory_graph import LeavesToRoot, RootToLeaves
from tvix_store.model.nodes import Node
from tvix_store.protocol.dialects import Dialect
from tvix_store.protocol.directories import encode_get_directory
from tvix_store.services.stored_tree import StoredTree


class GrpcDirectories:
    """A DirectoryService over a connection, in a dialect.

    `parts` puts directories by several calls, where one call carries only so many.
    """

    def __init__(self, connection: Connection, dialect: Dialect, parts: BulkGranular | None = None) -> None:
        self._connection = connection
        self._dialect = dialect
        self._parts = parts

    async def get(self, digest: Digest) -> Directory | None:
        try:
            async with aclosing(self._received(digest, recursive=False)) as directories:
                directory = await anext(directories, None)
        except NotFoundError:
            return None
        if directory is not None and directory.digest != digest:
            raise CorruptError(f"{self._connection.server}: the server sent {directory.digest} for directory {digest}")
        return directory

    async def get_recursive(self, digest: Digest) -> AsyncIterator[Directory]:
        order = RootToLeaves(digest)
        empty = True
        async with aclosing(self._received(digest, recursive=True)) as directories:
            async for directory in directories:
                empty = False
                with decoding(self._connection.server):
                    order.add(directory)
                yield directory
        if empty:  # how some servers tell that it is not there
            raise NotFoundError("directory", digest)
        with decoding(self._connection.server):
            order.finish()

    def tree(self, root: Node) -> StoredTree:
        return StoredTree(self, root)

    async def put(self, directories: AsyncIterable[Directory]) -> Digest:
        """As `DirectoryService.put`. Of a graph that is put in parts, and refused in the end, some parts stay."""
        most = self._connection.most_sent
        if self._parts is None or most is None:
            return await self._put_whole(directories)
        graph = LeavesToRoot()
        held: list[Directory] = []
        size = 0
        is_whole = True
        async for directory in directories:
            graph.add(directory)
            if held and size + len(directory.encoded) + AROUND > most:
                await self._parts.put_directories(held)
                held, size, is_whole = [], 0, False
            held.append(directory)
            size += len(directory.encoded) + AROUND
        root = graph.finish()
        if is_whole:
            return await self._put_whole(_each_of(held))
        await self._parts.put_directories(held)
        return root

    async def _put_whole(self, directories: AsyncIterable[Directory]) -> Digest:
        root: Digest | None = None

        async def messages() -> AsyncGenerator[bytes, None]:
            nonlocal root
            async for directory in directories:
                root = directory.digest
                yield directory.encoded

        answer = await self._connection.send_once(self._dialect.directory("Put"), messages(), ("directory", "that is being put"))
        if root is None:
            raise CorruptError(f"{self._connection.server}: the server says that it stored a directory, but none was sent")
        check_stored(answer, root, self._connection.server)
        return root

    async def _received(self, digest: Digest, *, recursive: bool) -> AsyncGenerator[Directory, None]:
        path, request = self._dialect.directory("Get"), encode_get_directory(digest, recursive=recursive)
        async with aclosing(self._connection.receive(path, request, ("directory", digest))) as messages:
            async for message in messages:
                with decoding(self._connection.server):
                    directory = Directory.decode(message)
                yield directory


async def _each_of(directories: list[Directory]) -> AsyncIterator[Directory]:
    for directory in directories:
        yield directory
