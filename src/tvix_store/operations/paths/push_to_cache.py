"""push_to_cache: bring store paths from files on this machine into a binary cache, as NARs and narinfos."""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncGenerator, Callable, Container, Generator, Iterable
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import zstandard

from tvix_store.compression import COMPRESSIONS
from tvix_store.concurrency.thread_to_its_end import thread_to_its_end
from tvix_store.errors import UnauthenticatedError
from tvix_store.model.narinfo import NarInfo
from tvix_store.model.nix_hash import NixHash
from tvix_store.model.path_info import NarFacts
from tvix_store.model.signature import SecretKey
from tvix_store.model.store_path import STORE_DIR, StorePath
from tvix_store.operations.granular.account import Account
from tvix_store.operations.ingest.nar_of_tree import nar_pieces
from tvix_store.operations.paths.nix_json import StatedPath
from tvix_store.operations.paths.path_copies import Copied, NothingTakenError, PathCopies, check_nar
from tvix_store.services.writable_cache import NarFile, WritableCache

JOBS = 16
"""NARs that are written at a time. Each waits for the server several times."""
_LEVEL = 3
"""Of zstd, as Nix has it."""
_LARGE = 8 << 20
"""Bytes of a NAR from which several threads compress it."""


async def push_to_cache(
    cache: WritableCache,
    paths: Iterable[StatedPath],
    file: Callable[[StorePath], Path],
    *,
    compression: str = "zstd",
    signing_keys: Iterable[SecretKey] = (),
    store_dir: str = STORE_DIR,
    elsewhere: Container[StorePath] = (),
    jobs: int | None = None,
    account: Account | None = None,
) -> AsyncGenerator[Copied, None]:
    """Copy `paths`, whose contents are where `file` says. Yields the outcome of each path, references first.

    The hash of each NAR is computed before its file gets a name. A path that the cache has with the same NAR is not read, and new
    signatures are added to it. An error of one path keeps this path, and all that refer to it, from being recorded; the others are
    copied. `compression` is `zstd` or `none`. `signing_keys` sign each path that is new. References that are `elsewhere` need not
    be in the cache.

    Raises:
        InvalidError: the references go round in a circle, or the cache is for another store directory.
        DeniedError, ExhaustedError, UnavailableError, UnsupportedError: the cache cannot take them.
    """
    await cache.prepare()
    pushes = _Pushes(cache, file, compression, tuple(signing_keys), store_dir, elsewhere, jobs or JOBS, account or Account())
    async with aclosing(pushes.run(paths)) as outcomes:
        async for each in outcomes:
            yield each


class _Pushes(PathCopies[StatedPath, NarInfo]):
    def __init__(
        self,
        cache: WritableCache,
        file: Callable[[StorePath], Path],
        compression: str,
        signing_keys: tuple[SecretKey, ...],
        store_dir: str,
        elsewhere: Container[StorePath],
        jobs: int,
        account: Account,
    ) -> None:
        super().__init__(cache, "Nix", jobs, elsewhere)
        self._cache = cache
        self._file = file
        self._compression = compression
        self._signing_keys = signing_keys
        self._store_dir = store_dir
        self._account = account

    async def merged(self, known: NarInfo, stated: StatedPath) -> NarInfo:
        self._account.logical += stated.nar.size
        self._account.moved(stated.nar.size)
        return known.merged(_narinfo(stated, NarFile(known.url, 0, b""), known.compression))

    async def bring(self, stated: StatedPath) -> NarInfo:
        try:
            file = await self._cache.put_nar(self._nar_file(stated), COMPRESSIONS[self._compression].suffix)
        except UnauthenticatedError as error:
            raise NothingTakenError(error) from error
        self._account.logical += stated.nar.size
        self._account.sent += file.size
        narinfo = _narinfo(stated, file, self._compression)
        message = narinfo.fingerprint(self._store_dir)
        own = (key.sign(message) for key in self._signing_keys)
        return replace(narinfo, signatures=tuple(dict.fromkeys((*narinfo.signatures, *own))))

    async def _nar_file(self, stated: StatedPath) -> AsyncGenerator[bytes, None]:
        """The file of the NAR. It ends with an error if the NAR is not the stated one."""
        sha256 = hashlib.sha256()
        size = 0
        threads = (os.cpu_count() or 1) if stated.nar.size >= _LARGE else 0
        stream = zstandard.ZstdCompressor(_LEVEL, threads=threads).compressobj() if self._compression == "zstd" else None

        def file() -> Generator[bytes, None, None]:
            nonlocal size
            for piece in nar_pieces(self._file(stated.store_path)):
                sha256.update(piece)
                size += len(piece)
                yield piece if stream is None else stream.compress(piece)
            check_nar(
                stated.store_path, NarFacts(size, sha256.digest()), stated.nar, "Nix", " (nix-store --verify-path tells more)"
            )
            if stream is not None:
                yield stream.flush()

        pieces = file()
        told = 0
        try:
            while (piece := await thread_to_its_end(next, pieces, None)) is not None:
                self._account.moved(min(size, stated.nar.size) - told)
                told = min(size, stated.nar.size)
                if piece:
                    yield piece
        finally:
            pieces.close()


def _narinfo(stated: StatedPath, file: NarFile, compression: str) -> NarInfo:
    return NarInfo(
        store_path=stated.store_path,
        url=file.url,
        compression=compression,
        nar=stated.nar,
        file_hash=NixHash("sha256", file.sha256) if file.sha256 else None,
        file_size=file.size,
        references=stated.references,
        deriver=stated.deriver,
        signatures=stated.signatures,
        ca=stated.ca,
    )
