"""PUT of NARs: taken apart while they arrive, and linked by their hashes."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing
from typing import NamedTuple

from tvix_store.compression import DETECT, NARROW_WINDOW, WindowError, decompressor, of_suffix
from tvix_store.errors import InvalidError
from tvix_store.http.nars import parse_file_name
from tvix_store.http.request import Request
from tvix_store.http.response import Response, text
from tvix_store.http.settings import CacheSettings
from tvix_store.http.status import HttpError
from tvix_store.model import nixbase32
from tvix_store.nar import tokens
from tvix_store.operations.import_nar import NarImport
from tvix_store.operations.nar_links import NarLink, NarLinks, link_records
from tvix_store.services.store import Store

_SMALL = 4096
"""Bytes of the largest body that is decompressed on the event loop: closures have thousands of paths of a few small files.
_SMALL_ZSTD: the same of zstd, which takes 1 ms at worst for the MiB that is made in one step; xz and bzip2 would take 20."""
_SMALL_ZSTD = 64 << 10
_GATHERED = 1 << 20
"""Bytes that are worked on at a time: the engine hands over 8 KiB, and a thread's answer takes as long as hashing them."""
_AT_ONCE = 8
"""NARs that a worker works on at a time."""
_WIDE_AT_ONCE = 2
"""NARs that may make a worker keep up to 128 MiB of history each, as `xz -9` and `zstd --ultra` do; others keep at most 16."""


class Uploads:
    """Takes NARs into a store."""

    def __init__(self, store: Store, links: NarLinks, settings: CacheSettings) -> None:
        self._store = store
        self._links = links
        self._settings = settings
        self._room = _Room(asyncio.Semaphore(_AT_ONCE), asyncio.Semaphore(_WIDE_AT_ONCE), settings.body_timeout)

    async def put(self, request: Request, name: bytes) -> Response:
        """Take a NAR, compressed as the suffix of `name` says."""
        file_hash, suffix = parse_file_name(name)
        file = _CompressedFile(request, of_suffix(suffix), self._room)
        # Closed here, whatever happens, and not when nobody refers to it any more: it holds room that others wait for.
        store = self._store
        # Who sends it again was told that it is not here: what is known of it may be damaged, in more places than were found.
        is_again = await self._links.get(file_hash) is not None
        async with aclosing(file.nar()) as pieces, NarImport(store, rechecks=is_again) as importing:
            node, nar = await importing.read(pieces, self._settings.max_nar_size, self._settings.max_nar_entries)
            got = nar.sha256 if file.is_plain else file.sha256()
            if got != file_hash:
                raise InvalidError(
                    f"the file that came has SHA-256 {nixbase32.encode(got)}, not {nixbase32.encode(file_hash)} as its name says"
                )
            link = NarLink(nar, node)
            small = importing.held()
            if small is not None and store.small_trees is not None and not is_again:
                await store.small_trees.put(small, nar, link_records(link, file_hash))
            else:
                await importing.store()
                # Side by side, so that they wait for the same commit.
                await asyncio.gather(store.nar.record(node, nar), self._links.put(link, file_hash))
        return text(201, "the NAR is stored")


class _Room(NamedTuple):
    """What bounds a worker's memory: how many NARs are worked on, how many may have a wide window; how long to wait for it."""

    work: asyncio.Semaphore
    wide: asyncio.Semaphore
    patience: float


class _CompressedFile:
    """The body of a request on its way to being a NAR. One that `is_plain`, a NAR as it is, is left to its reader to hash."""

    def __init__(self, request: Request, compression: str, room: _Room) -> None:
        self._request = request
        self._room = room
        self._compression = compression
        self._decompress = decompressor(compression, max_window=NARROW_WINDOW)
        self._is_wide = False
        self._begin: bytes | None = b""
        """What came before anything was given out, while that is little."""
        self._hash = hashlib.sha256()
        self.is_plain = False

    def sha256(self) -> bytes:
        return self._hash.digest()

    async def nar(self) -> AsyncGenerator[bytes, None]:
        """Work on what has come, hashing and decompressing, happens in a thread, unless it is shorter than changing to one.

        Raises:
            HttpError: others use all the memory that there is for wide windows.
            InvalidError, ExhaustedError: as `Decompressor`.
        """
        try:
            async for data in self._request.body(_GATHERED):
                self.is_plain = self.is_plain or (
                    self._begin == b"" and self._compression == DETECT and data.startswith(tokens.MAGIC)
                )
                # Only while there is something to work on, which is over when more is asked for: slow clients keep nobody waiting.
                async with self._room.work:
                    if self.is_plain:
                        yield data
                        continue
                    async with aclosing(self._decompressed(data)) as pieces:
                        async for piece in pieces:
                            yield piece
            if not self.is_plain:
                self._decompress.finish()
        finally:
            if self._is_wide:
                self._room.wide.release()

    async def _decompressed(self, data: bytes) -> AsyncGenerator[bytes, None]:
        if self._begin is not None:
            self._begin = self._begin + data if len(self._begin) < _GATHERED else None
        try:
            async for piece in self._fed(data, hashed=False):
                self._begin = None
                yield piece
        except WindowError:
            if self._begin is None or self._is_wide:
                raise
            await self._widen()
            async for piece in self._fed(self._begin, hashed=True):
                self._begin = None
                yield piece

    async def _fed(self, data: bytes, *, hashed: bool) -> AsyncIterator[bytes]:
        pieces = self._worked(data, hashed=hashed)
        is_small = len(data) <= (_SMALL_ZSTD if self._compression == "zstd" else _SMALL)
        is_last = False
        while not is_last:
            some, is_last = _next(pieces) if is_small else await asyncio.to_thread(_next, pieces)
            is_small = False  # more than a MiB comes of it
            for piece in some:
                yield piece

    def _worked(self, data: bytes, *, hashed: bool) -> Iterator[bytes]:
        if not hashed:
            self._hash.update(data)
        yield from self._decompress.feed(data)

    async def _widen(self) -> None:
        """Begin again with a decompressor that may keep a wide window, as few at a time may."""
        self._room.work.release()
        try:
            async with asyncio.timeout(self._room.patience):
                await self._room.wide.acquire()
            self._is_wide = True
        except TimeoutError:
            raise HttpError(413, "too many NARs with large windows are being taken; use a smaller one, or try again") from None
        finally:
            await self._room.work.acquire()
        self._decompress = decompressor(self._compression)


def _next(pieces: Iterator[bytes]) -> tuple[list[bytes], bool]:
    """The next pieces, a MiB or two, and whether they are the last."""
    some: list[bytes] = []
    size = 0
    for piece in pieces:
        some.append(piece)
        size += len(piece)
        if size >= _GATHERED:
            return some, False
    return some, True
