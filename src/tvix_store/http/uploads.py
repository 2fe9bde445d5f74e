"""PUT of NARs: taken apart while they arrive, and linked by their hashes."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator

from tvix_store.compression import decompressor, of_suffix
from tvix_store.errors import InvalidError
from tvix_store.http.nars import parse_file_name
from tvix_store.http.request import Request
from tvix_store.http.response import Response, text
from tvix_store.http.settings import CacheSettings
from tvix_store.model import nixbase32
from tvix_store.operations.import_nar import import_nar
from tvix_store.operations.nar_links import NarLink, NarLinks
from tvix_store.services.store import Store

_SMALL = 4096
"""Bytes of the largest piece that is worked on in the event loop: paths of a few small files, of which a closure may have thousands."""
_AT_ONCE = 16
"""NARs that a worker takes at a time; others wait. Each may need some 20 MB: the window of its compression, and files on their way."""


class Uploads:
    """Takes NARs into a store."""

    def __init__(self, store: Store, links: NarLinks, settings: CacheSettings) -> None:
        self._store = store
        self._links = links
        self._settings = settings
        self._room = asyncio.Semaphore(_AT_ONCE)

    async def put(self, request: Request, name: bytes) -> Response:
        """Take a NAR, compressed as the suffix of `name` says."""
        file_hash, suffix = parse_file_name(name)
        file = _CompressedFile(request, of_suffix(suffix))
        async with self._room:
            node, nar = await import_nar(
                self._store.blobs,
                self._store.directories,
                file.nar(),
                size_rule=self._store.size_rule,
                max_size=self._settings.max_nar_size,
                max_entries=self._settings.max_nar_entries,
            )
        if file.sha256() != file_hash:
            got = nixbase32.encode(file.sha256())
            raise InvalidError(f"the file that came has SHA-256 {got}, not {nixbase32.encode(file_hash)} as its name says")
        # Side by side, so that they wait for the same commit.
        await asyncio.gather(self._store.nar.record(node, nar), self._links.put(NarLink(nar, node), file_hash))
        return text(201, "the NAR is stored")


class _CompressedFile:
    """The body of a request on its way to being a NAR."""

    def __init__(self, request: Request, compression: str) -> None:
        self._request = request
        self._compression = compression
        self._hash = hashlib.sha256()

    def sha256(self) -> bytes:
        return self._hash.digest()

    async def nar(self) -> AsyncIterator[bytes]:
        """Work on a piece, hashing and decompressing, happens in a thread, unless it is as short as changing to one."""
        decompress = decompressor(self._compression)
        async for piece in self._request.body():
            if len(piece) <= _SMALL:
                self._hash.update(piece)
                for data in decompress.feed(piece):
                    yield data
                continue
            hashing = asyncio.get_running_loop().run_in_executor(None, self._hash.update, piece)
            try:
                pieces = decompress.feed(piece)
                while (data := await asyncio.to_thread(next, pieces, None)) is not None:
                    yield data
            finally:
                await hashing
        decompress.finish()
