"""DirectoryCache: an upstream binary cache in a directory."""

from __future__ import annotations

import os
import re
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path

from tvix_store.backends.nix_file.address import shown
from tvix_store.backends.nix_file.files import CacheFiles
from tvix_store.concurrency.thread_to_its_end import thread_to_its_end
from tvix_store.errors import InvalidError
from tvix_store.model import cache_info, nixbase32
from tvix_store.model.cache_info import MAX_CACHE_INFO, CacheInfo
from tvix_store.model.narinfo import MAX_NARINFO, NarInfo
from tvix_store.services.store import Store
from tvix_store.services.upstream import DEFAULT_PRIORITY, UpstreamFailsError, UpstreamLacksError, UpstreamLiesError

_PIECE = 512 << 10
"""Bytes that are read at a time."""
_NARINFO = re.compile(r"([0-9a-df-np-sv-z]{32})\.narinfo")


def narinfo_name(output_hash: bytes) -> str:
    """The name of the file with the narinfo of a path."""
    return f"{nixbase32.encode(output_hash)}.narinfo"


class DirectoryCache:
    """An Upstream in a directory. It tells what it has."""

    def __init__(self, directory: Path, *, store_dir: str) -> None:
        self.name = shown(directory)
        self._directory = directory
        self._files = CacheFiles(directory)
        self._store_dir = store_dir

    async def output_hashes(self) -> list[bytes]:
        """The output hashes of all narinfos, in the order of their names.

        Raises:
            UpstreamDownError: the directory cannot be read.
        """

        def find() -> list[bytes]:
            found = filter(None, map(_NARINFO.fullmatch, self._files.names()))
            return [nixbase32.decode(name) for name in sorted(match[1] for match in found)]

        return await thread_to_its_end(find)

    async def priority(self) -> int:
        text = await self.document(cache_info.NAME, MAX_CACHE_INFO)
        if text is None:
            raise UpstreamLiesError(f"{self._directory} is not a binary cache: it has no {cache_info.NAME}")
        told = CacheInfo.parse(text)
        if told.store_dir not in (None, self._store_dir):
            raise UpstreamLiesError(f"{self._directory} is a cache for {told.store_dir[:100]!r}, not for {self._store_dir}")
        return DEFAULT_PRIORITY if told.priority is None else told.priority

    async def content(self) -> Store | None:
        return None

    async def narinfo(self, output_hash: bytes) -> NarInfo | None:
        name = narinfo_name(output_hash)
        text = await self.document(name, MAX_NARINFO)
        if text is None:
            return None
        try:
            return NarInfo.parse(text, self._store_dir)
        except InvalidError as error:
            raise UpstreamLiesError(f"{name}: {error}") from None

    async def nar_file(self, narinfo: NarInfo) -> AsyncGenerator[bytes, None]:
        """As `Upstream.nar_file`. A file that cannot be read is as good as absent: that tells nothing about others."""
        try:
            async with aclosing(self._pieces(narinfo.url)) as pieces:
                async for piece in pieces:
                    yield piece
        except UpstreamFailsError as error:
            raise UpstreamLacksError(str(error)) from None

    async def document(self, path: str, most: int) -> bytes | None:
        return await thread_to_its_end(self._files.read, path, most)

    async def stream(self, path: str, most: int) -> AsyncGenerator[bytes, None]:
        left = most
        async with aclosing(self._pieces(path)) as pieces:
            async for piece in pieces:
                left -= len(piece)
                if left < 0:
                    raise UpstreamLiesError(f"{path} has more than {most} bytes")
                yield piece

    async def close(self) -> None:
        """Nothing is open between two calls."""

    async def _pieces(self, path: str) -> AsyncGenerator[bytes, None]:
        reading = _Reading(self._files, path)
        try:
            await thread_to_its_end(reading.open)
            while piece := await thread_to_its_end(reading.read):
                yield piece
        finally:
            reading.close()


class _Reading:
    """A file that is being read. The methods block."""

    def __init__(self, files: CacheFiles, path: str) -> None:
        self._files = files
        self._path = path
        self._fd: int | None = None

    def open(self) -> None:
        self._fd = self._files.open(self._path)
        if self._fd is None:
            raise UpstreamLacksError(f"{self._path} is not there")

    def read(self) -> bytes:
        assert self._fd is not None
        try:
            return os.read(self._fd, _PIECE)
        except OSError as error:
            raise UpstreamFailsError(f"{self._path} cannot be read: {error.strerror}") from None

    def close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
