"""DirectoryService, in a dialect."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator

from tvix_store.errors import NotFoundError
from tvix_store.model.directory import Directory
from tvix_store.protocol.blobs import encode_digest
from tvix_store.protocol.dialects import Dialect
from tvix_store.protocol.directories import decode_get_directory
from tvix_store.rpc.method import Call, Method, ServerStreaming, Takes, client_streaming
from tvix_store.services import DirectoryService


def directory_methods(directories: DirectoryService, dialect: Dialect, max_message: int) -> dict[str, Method]:
    """The calls of a dialect's DirectoryService by path. `max_message` bounds a directory in bytes."""

    async def get(message: bytes, _call: Call) -> AsyncGenerator[bytes, None]:
        digest, recursive = decode_get_directory(message)
        if recursive:
            async for directory in directories.get_recursive(digest):
                yield directory.encoded
            return
        found = await directories.get(digest)
        if found is None:
            raise NotFoundError("directory", digest)
        yield found.encoded

    async def put(graph: AsyncIterator[Directory], _call: Call) -> bytes:
        return encode_digest(await directories.put(graph))

    return {
        dialect.directory("Get"): ServerStreaming(get),
        dialect.directory("Put"): client_streaming(put, Takes(max_message=max_message, decode=Directory.received, writes=True)),
    }
