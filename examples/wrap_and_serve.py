"""Puts a service of one's own over that of a store, and serves the store to Nix.

python examples/wrap_and_serve.py [STORE [ADDRESS]]

The service refuses content that is on a list. Everything else is as in the store. End it with Ctrl-C.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterable, AsyncIterator, Sequence

from tvix_store import BlobService, BlobStat, DeniedError, Digest, Store, open_store
from tvix_store.server import ServerConfig, serve

REFUSED = {Digest.of(b"a virus\n")}


class Refusing:
    """A BlobService that lacks some content, and takes none of it."""

    def __init__(self, inner: BlobService) -> None:
        self._inner = inner

    async def stat(self, digest: Digest, *, chunks: bool = False) -> BlobStat | None:
        return None if digest in REFUSED else await self._inner.stat(digest, chunks=chunks)

    async def missing(self, digests: Sequence[Digest]) -> set[Digest]:
        return await self._inner.missing(digests) | REFUSED.intersection(digests)

    async def read(self, digest: Digest, start: int = 0, stop: int | None = None) -> AsyncIterator[bytes]:
        self._check(digest)
        async for piece in self._inner.read(digest, start, stop):
            yield piece

    async def put(self, data: AsyncIterable[bytes]) -> Digest:
        digest = await self._inner.put(data)
        self._check(digest)  # it is stored by now, but nobody gets it here
        return digest

    async def put_many(self, blobs: Sequence[bytes]) -> list[Digest]:
        for blob in blobs:
            self._check(Digest.of(blob))
        return await self._inner.put_many(blobs)

    async def get_many(self, digests: Sequence[Digest]) -> list[bytes | None]:
        contents = await self._inner.get_many(digests)
        return [None if digest in REFUSED else content for digest, content in zip(digests, contents, strict=True)]

    def _check(self, digest: Digest) -> None:
        if digest in REFUSED:
            raise DeniedError(f"{digest} is refused here")


async def open_wrapped() -> Store:
    """Called in each worker. `with_services` drops the shortcuts of the store that would go past our service."""
    store = await open_store(sys.argv[1] if len(sys.argv) > 1 else "memory://")
    return store.with_services(blobs=Refusing(store.blobs))


if __name__ == "__main__":
    address = sys.argv[2] if len(sys.argv) > 2 else "localhost:8000"
    # A store in memory belongs to one process; other stores may have as many workers as there are cores.
    serve(ServerConfig((address,), workers=1), open_wrapped)
