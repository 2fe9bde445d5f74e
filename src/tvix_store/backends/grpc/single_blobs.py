"""SingleBlobs: the calls for single blobs that a server must offer."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Protocol

from tvix_store.backends.grpc.channel import Metadata
from tvix_store.model.digest import Digest
from tvix_store.services.blobs import Chunk


class SingleBlobs(Protocol):
    """Blobs of any size, and their chunks. A read is verified, and comes in pieces of at most 1 MiB."""

    async def is_there(self, digest: Digest) -> bool: ...

    async def chunks(self, digest: Digest) -> Sequence[Chunk] | None:
        """The chunks of a blob; none where it has no list of them, None where it is not there."""
        ...

    def read(self, digest: Digest) -> AsyncGenerator[bytes, None]: ...

    def read_chunk(self, chunk: Chunk) -> AsyncGenerator[bytes, None]: ...

    async def put(self, digest: Digest, blob: bytes) -> None:
        """Store a blob that fits a message."""
        ...

    async def put_stream(self, first: bytes, rest: AsyncGenerator[bytes, None], metadata: Metadata) -> Digest:
        """Store a blob that comes in pieces. `metadata` goes with the call, where there is one for all."""
        ...
