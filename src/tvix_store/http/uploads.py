"""PUT of NARs: taken apart while they arrive, and linked by their hashes."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing

from tvix_store.compression import DETECT, WINDOWS, WindowError, decompressor, of_suffix
from tvix_store.errors import InvalidError
from tvix_store.http.names import parse_file_name
from tvix_store.http.request import Request
from tvix_store.http.response import Response, text
from tvix_store.http.settings import CacheSettings
from tvix_store.model import nixbase32
from tvix_store.model.path_info import NarFacts
from tvix_store.nar import tokens
from tvix_store.operations.paths.accept_nar import accept_nar
from tvix_store.services.store import Store

_SMALL = 4096
"""Bytes of the largest body that is decompressed on the event loop: closures have thousands of paths of a few small files."""
_SMALL_ZSTD = 64 << 10
"""The same of zstd, which takes 1 ms at worst for the MiB that is made in one step; xz and bzip2 would take 20."""
_GATHERED = 1 << 20
"""Bytes that are worked on at a time: the engine hands over 8 KiB, and a thread's answer takes as long as hashing them."""
_AT_ONCE = 8
"""NARs that a worker works on at a time."""
_SHARE = 4 << 20
"""Bytes of a NAR after which the place goes to others. A MiB of zstd may make 32 GiB of zeros."""
_KEEPS = {"br": 16 << 20, "bzip2": 8 << 20, "lz4": 8 << 20}
"""Bytes that decompressors keep that do not say how much they want."""
_WORK = 4 << 20
"""Bytes that working on a NAR keeps, beside the history that its compression needs."""


class Uploads:
    """Takes NARs into a store."""

    def __init__(self, store: Store, settings: CacheSettings) -> None:
        self._store = store
        self._settings = settings
        self._places = asyncio.Semaphore(_AT_ONCE)

    async def put(self, request: Request, name: bytes) -> Response:
        """Take a NAR, compressed as the suffix of `name` says."""
        file_hash, suffix = parse_file_name(name)
        file = _CompressedFile(request, of_suffix(suffix), self._places)

        def check(nar: NarFacts) -> Sequence[bytes]:
            got = nar.sha256 if file.is_plain else file.sha256()
            if got != file_hash:
                raise InvalidError(
                    f"the file that came has SHA-256 {nixbase32.encode(got)}, not {nixbase32.encode(file_hash)} as its name says"
                )
            return (file_hash,)

        # Closed here, whatever happens, and not by the garbage collector: others wait for the place that it holds.
        async with aclosing(file.nar()) as pieces:
            most, entries = self._settings.max_nar_size, self._settings.max_nar_entries
            await accept_nar(self._store, pieces, file_hash, check, max_size=most, max_entries=entries)
        return text(201, "the NAR is stored")


class _CompressedFile:
    """The body of a request on its way to being a NAR. One that `is_plain`, a NAR as it is, is left to its reader to hash.

    It has one of `places` only while there is something to work on, which is over when more is asked for: slow clients keep nobody
    waiting. A place goes to others every `_SHARE` bytes.
    """

    def __init__(self, request: Request, compression: str, places: asyncio.Semaphore) -> None:
        self._request = request
        self._places = places
        self._compression = compression
        self._windows = iter(window for window in WINDOWS if window >= _KEEPS.get(compression, 0))
        self._window = next(self._windows)
        self._decompress = decompressor(compression, max_window=self._window)
        self._begin: bytes | None = b""
        """What came before anything was given out, while that is little."""
        self._hash = hashlib.sha256()
        self.is_plain = False

    def sha256(self) -> bytes:
        return self._hash.digest()

    async def nar(self) -> AsyncGenerator[bytes, None]:
        """Work on what has come, hashing and decompressing, happens in a thread, unless it is shorter than changing to one.

        Raises:
            InvalidError, ExhaustedError: as `Decompressor`.
            ExhaustedError: there is no room for its history.
        """
        async for data in self._request.body(_GATHERED):
            self.is_plain = self.is_plain or (self._begin == b"" and self._compression == DETECT and data.startswith(tokens.MAGIC))
            if self.is_plain:
                async with self._places:
                    yield data
                continue
            if not self._request.body_ended:
                await self._hold_window()
            async with aclosing(self._decompressed(data)) as pieces:
                async for piece in pieces:
                    yield piece
        if not self.is_plain:
            self._decompress.finish()

    async def _decompressed(self, data: bytes) -> AsyncGenerator[bytes, None]:
        if self._begin is not None:
            self._begin = self._begin + data if len(self._begin) < _GATHERED else None
        hashed = False
        while True:
            try:
                async with aclosing(self._in_shares(self._fed(data, hashed=hashed))) as pieces:
                    async for piece in pieces:
                        self._begin = None
                        yield piece
                return
            except WindowError:
                wider = next(self._windows, None)
                if self._begin is None or wider is None:
                    raise
            # Begin again with a decompressor that may keep more.
            self._window = wider
            await self._hold_window()
            self._decompress = decompressor(self._compression, max_window=wider)
            data, hashed = self._begin, True

    async def _in_shares(self, work: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
        """What comes of `work`, which goes on while there is a place for it."""
        async with aclosing(work):
            is_over = False
            while not is_over:
                async with self._places:
                    is_over, share = True, 0
                    async for piece in work:
                        yield piece
                        share += len(piece)
                        if share >= _SHARE:
                            is_over = False
                            break

    async def _fed(self, data: bytes, *, hashed: bool) -> AsyncGenerator[bytes, None]:
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

    async def _hold_window(self) -> None:
        await self._request.arriving.hold(_WORK + self._window)


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
