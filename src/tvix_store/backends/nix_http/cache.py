"""HttpCache: an upstream binary cache."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import TypeAlias

import aiohttp

from tvix_store.backends.nix_http.client import HttpClient, shown
from tvix_store.backends.nix_http.encodings import decoded
from tvix_store.errors import InvalidError, StoreError, UnavailableError
from tvix_store.model import cache_info, nixbase32
from tvix_store.model.cache_info import MAX_CACHE_INFO, CacheInfo
from tvix_store.model.narinfo import MAX_NARINFO, NarInfo
from tvix_store.protocol.connect import CALLS_KEY
from tvix_store.protocol.connect import PREFIX as CALLS_PREFIX
from tvix_store.services.store import Store
from tvix_store.services.upstream import (
    DEFAULT_PRIORITY,
    UpstreamDownError,
    UpstreamFailsError,
    UpstreamLacksError,
    UpstreamLiesError,
    UpstreamStalledError,
)

_PAUSE = 0.2
"""Seconds until a request that failed at once is tried once more."""
_RESUMPTIONS = 5
_STREAMS = 8
"""Files that are passed on at the same time. Their readers may be slow: they must not take all connections."""
_LEFT_ALONE = 60.0
"""Seconds until a cache is asked again to let us read the parts of its content."""
OpenContent: TypeAlias = Callable[[], Awaitable[Store]]
_log = logging.getLogger(__name__)
_ABSENT = (403, 404, 410)
"""S3 answers 403 if it does not want to say that a file is missing."""


class HttpCache:
    """An Upstream over HTTP."""

    def __init__(self, client: HttpClient, name: str, *, store_dir: str, open_content: OpenContent | None = None) -> None:
        self.name = name
        self._client = client
        self._store_dir = store_dir
        self._open_content = open_content
        self._opening = asyncio.Lock()
        self._offers_content = False
        self._content: Store | None = None
        self._content_left_alone_until = 0.0
        self._streams = asyncio.Semaphore(_STREAMS)

    async def priority(self) -> int:
        told = CacheInfo.parse(await self.document(cache_info.NAME, MAX_CACHE_INFO) or b"")
        if told.store_dir not in (None, self._store_dir):
            raise UpstreamLiesError(f"it is a cache for {told.store_dir[:100]!r}, not for {self._store_dir}")
        self._offers_content = told.values.get(CALLS_KEY) == CALLS_PREFIX.strip("/")
        return DEFAULT_PRIORITY if told.priority is None else told.priority

    async def content(self) -> Store | None:
        if not self._offers_content or self._open_content is None:
            return None
        async with self._opening:
            if self._content is None and time.monotonic() >= self._content_left_alone_until:
                try:
                    self._content = await self._open_content()
                except StoreError as error:
                    self._content_left_alone_until = time.monotonic() + _LEFT_ALONE
                    _log.warning("%s: the parts of its content cannot be read: %s", self.name, error)
            return self._content

    async def narinfo(self, output_hash: bytes) -> NarInfo | None:
        text = await self.document(f"{nixbase32.encode(output_hash)}.narinfo", MAX_NARINFO)
        if text is None:
            return None
        try:
            return NarInfo.parse(text, self._store_dir)
        except InvalidError as error:
            raise UpstreamLiesError(str(error)) from None

    async def nar_file(self, narinfo: NarInfo) -> AsyncGenerator[bytes, None]:
        """As `Upstream.nar_file`. A download that breaks off is resumed, if the server can, as long as bytes come."""
        done = 0
        for _ in range(1 + _RESUMPTIONS):
            before, resumable = done, False
            try:
                async with self._client.get(narinfo.url, start=done) as response:
                    _check_begins_at(done, response, narinfo.url)
                    resumable = _resumable(response)
                    encoding = response.headers.get("Content-Encoding")
                    async with aclosing(decoded(self._client.body(response), encoding)) as pieces:
                        async for piece in pieces:
                            done += len(piece)
                            yield piece
                    return
            except UpstreamStalledError:
                raise
            except UpstreamDownError:
                if not resumable or done == before:
                    raise
        raise UpstreamDownError(f"the NAR at {shown(narinfo.url)} breaks off again and again")

    async def document(self, path: str, most: int) -> bytes | None:
        """As `Upstream.document`. A request that fails at once is tried once more."""
        before = time.monotonic()
        try:
            try:
                return await self._whole(path, most)
            except UpstreamDownError:
                if time.monotonic() - before > self._client.timeouts.connect / 2:
                    raise
            await asyncio.sleep(_PAUSE)
            return await self._whole(path, most)
        except UpstreamLacksError:
            return None

    async def stream(self, path: str, most: int) -> AsyncGenerator[bytes, None]:
        """As `Upstream.stream`.

        Raises:
            UnavailableError: too many slow readers have a stream.
        """
        try:
            async with asyncio.timeout(self._client.timeouts.connect):
                await self._streams.acquire()
        except TimeoutError:
            raise UnavailableError(f"too many files of {self.name} are being passed on; try again") from None
        try:
            async with aclosing(self._pieces(path, most)) as pieces:
                async for piece in pieces:
                    yield piece
        finally:
            self._streams.release()

    async def close(self) -> None:
        if self._content is not None:
            await self._content.close()
        await self._client.close()

    async def _pieces(self, path: str, most: int) -> AsyncGenerator[bytes, None]:
        async with self._client.get(path) as response:
            if response.status in _ABSENT:
                await self._client.drain(response)
                raise UpstreamLacksError(f"{path} is not there")
            if response.status != 200:
                raise UpstreamFailsError(f"{path} is answered with status {response.status}")
            size, encoding = 0, response.headers.get("Content-Encoding")
            async with aclosing(decoded(self._client.body(response), encoding, most=most + 1)) as pieces:
                async for piece in pieces:
                    size += len(piece)
                    if size > most:
                        raise UpstreamLiesError(f"{path} has more than {most} bytes")
                    yield piece

    async def _whole(self, path: str, most: int) -> bytes:
        gathered = bytearray()
        timeouts = self._client.timeouts
        try:
            async with aclosing(self._pieces(path, most)) as pieces:
                gathered += await anext(pieces, b"")
                async with asyncio.timeout(timeouts.stalled):
                    async for piece in pieces:
                        gathered += piece
        except TimeoutError:
            raise UpstreamStalledError(f"{path} does not come in time") from None
        return bytes(gathered)


def _check_begins_at(start: int, response: aiohttp.ClientResponse, url: str) -> None:
    """Raise UpstreamLacksError or UpstreamDownError where the body is not that of a file, from `start` on."""
    headers = response.headers
    if start and response.status in (200, 206):
        ranges = headers.get("Content-Range", "") if response.status == 206 else ""
        if "Content-Encoding" in headers or not ranges.startswith(f"bytes {start}-"):
            raise UpstreamDownError(f"the NAR at {shown(url)} does not go on where it broke off, at byte {start}")
    elif response.status != 200:
        kind = UpstreamLacksError if response.status in _ABSENT else UpstreamFailsError
        raise kind(f"the NAR at {shown(url)} is answered with status {response.status}")


def _resumable(response: aiohttp.ClientResponse) -> bool:
    """Whether the rest of the body can be asked for: its bytes are those of the file, and the server counts them."""
    headers = response.headers
    return response.status == 206 or ("Content-Encoding" not in headers and headers.get("Accept-Ranges", "").lower() == "bytes")
