"""HttpWriter: a binary cache over HTTP, to be written as Nix writes it: the file of a NAR, and then its narinfo."""

from __future__ import annotations

import asyncio
import hashlib
import io
from collections.abc import AsyncIterable, Sequence
from tempfile import SpooledTemporaryFile
from typing import IO

import aiohttp

from tvix_store.backends.nix_http.client import HttpClient
from tvix_store.concurrency.each_at_once import each_at_once
from tvix_store.errors import ExhaustedError, InvalidError, UnauthenticatedError, UnavailableError, UnsupportedError
from tvix_store.model import cache_info, nixbase32
from tvix_store.model.cache_info import MAX_CACHE_INFO, CacheInfo
from tvix_store.model.narinfo import NarInfo
from tvix_store.model.store_path import StorePath
from tvix_store.services.upstream import Upstream
from tvix_store.services.writable_cache import NarFile

_IN_MEMORY = 4 << 20
"""Bytes of a compressed NAR that wait in memory. The rest of a larger one waits in a temporary file."""
_AT_ONCE = 32
"""Narinfos that are asked for at a time; Nix has 25 connections."""
_TAKEN = (200, 201, 204)
_TOLD = 300
"""Characters of an answer that a message repeats."""


class HttpWriter:
    """A WritableCache at the base of `client`, which `cache` reads. Both are closed with it."""

    def __init__(self, client: HttpClient, cache: Upstream, *, store_dir: str) -> None:
        self.name = cache.name
        self._client = client
        self._cache = cache
        self._store_dir = store_dir

    async def prepare(self) -> None:
        async with self._client.head(cache_info.NAME) as response:
            _check_allowed(self.name, response)
        told = await self._cache.document(cache_info.NAME, MAX_CACHE_INFO)
        if told is None:
            await self._put_text(cache_info.NAME, f"StoreDir: {self._store_dir}\n".encode(), "text/x-nix-cache-info")
            return
        its = CacheInfo.parse(told).store_dir
        if its not in (None, self._store_dir):
            raise InvalidError(f"{self.name} is a cache for {its[:100]!r}, not for {self._store_dir}")

    async def get_many(self, output_hashes: Sequence[bytes], /) -> dict[bytes, NarInfo]:
        """As `WritableCache.get_many`. The NAR of a narinfo is not asked for: Nix does not, either."""
        found = await each_at_once(self._cache.narinfo, list(output_hashes), _AT_ONCE)
        return {output_hash: narinfo for output_hash, narinfo in zip(output_hashes, found, strict=True) if narinfo is not None}

    async def existing(self, output_hashes: Sequence[bytes], /) -> dict[bytes, StorePath]:
        return {output_hash: narinfo.store_path for output_hash, narinfo in (await self.get_many(output_hashes)).items()}

    async def put_nar(self, file: AsyncIterable[bytes], suffix: str) -> NarFile:
        sha256 = hashlib.sha256()
        size = 0

        with SpooledTemporaryFile(_IN_MEMORY) as spooled:

            def write(piece: bytes) -> None:
                sha256.update(piece)
                spooled.write(piece)

            try:
                async for piece in file:
                    await asyncio.to_thread(write, piece)
                    size += len(piece)
            except OSError as error:
                raise UnavailableError(f"a NAR cannot be kept on its way ($TMPDIR): {error.strerror}") from error
            url = f"nar/{nixbase32.encode(sha256.digest())}.nar{suffix}"
            async with self._client.head(url) as response:
                is_there = response.status == 200
            if not is_there:
                spooled.seek(0)
                await self._put(url, spooled, size, "application/x-nix-nar")
        return NarFile(url, size, sha256.digest())

    async def put(self, narinfo: NarInfo, /) -> None:
        output_hash = narinfo.store_path.output_hash
        known = await self._cache.narinfo(output_hash)
        merged = narinfo if known is None else known.merged(narinfo)
        if merged is not known:
            name = f"{nixbase32.encode(output_hash)}.narinfo"
            await self._put_text(name, merged.format(self._store_dir), "text/x-nix-narinfo")

    async def close(self) -> None:
        await self._cache.close()

    async def _put_text(self, path: str, text: bytes, content_type: str) -> None:
        await self._put(path, io.BytesIO(text), len(text), content_type)

    async def _put(self, path: str, body: IO[bytes], size: int, content_type: str) -> None:
        async with self._client.put(path, body, size, content_type) as response:
            if response.status in _TAKEN:
                return
            _check_allowed(self.name, response)
            is_text = response.content_type == "text/plain"
            told = (await response.content.read(_TOLD)).decode(errors="replace").strip() if is_text else ""
            message = f"{self.name} does not take {path} ({size} bytes): status {response.status}{f', {told}' if told else ''}"
            match response.status:
                case 413:
                    raise InvalidError(f"{message}; it is too large for the server (for nginx: client_max_body_size 0)")
                case 429 | 507:
                    raise ExhaustedError(message)
                case 404 | 405 | 501:
                    raise UnsupportedError(f"{message}; is it a binary cache that takes PUT?")
                case status if status < 500:
                    raise InvalidError(message)
                case _:
                    raise UnavailableError(message)


def _check_allowed(name: str, response: aiohttp.ClientResponse) -> None:
    if response.status in (401, 403):
        raise UnauthenticatedError(f"{name} does not let us: status {response.status}; {_why(response)}")


def _why(response: aiohttp.ClientResponse) -> str:
    if "Authorization" not in response.request_info.headers:
        return "a token stands in the URL, before the host, or in a netrc file"
    return "it does not know this token" if response.status == 401 else "this token does not allow it"
