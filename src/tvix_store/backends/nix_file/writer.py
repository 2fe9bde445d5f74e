"""DirectoryWriter: a binary cache in a directory, to be written."""

from __future__ import annotations

import errno
import hashlib
from collections.abc import AsyncIterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from tvix_store.backends.nix_file.address import shown
from tvix_store.backends.nix_file.cache import narinfo_name
from tvix_store.backends.nix_file.files import CacheFiles
from tvix_store.backends.nix_file.unfinished import UnfinishedFile, locked, tidy, unfinished_file
from tvix_store.concurrency.thread_to_its_end import thread_to_its_end
from tvix_store.durable_file import sync_directory
from tvix_store.errors import DeniedError, ExhaustedError, InvalidError, UnavailableError
from tvix_store.model import cache_info, nixbase32
from tvix_store.model.cache_info import MAX_CACHE_INFO, CacheInfo
from tvix_store.model.narinfo import MAX_NARINFO, NarInfo
from tvix_store.model.store_path import StorePath
from tvix_store.services.writable_cache import NarFile

_NARS = "nar"
_UNFINISHED = ".tvix-store"
"""Where files are until they are complete."""


class DirectoryWriter:
    """A WritableCache in a directory."""

    def __init__(self, directory: Path, *, store_dir: str) -> None:
        self.name = shown(directory)
        self._directory = directory
        self._unfinished = directory / _UNFINISHED
        self._files = CacheFiles(directory)
        self._store_dir = store_dir

    async def prepare(self) -> None:
        await thread_to_its_end(self._prepare)

    async def get_many(self, output_hashes: Sequence[bytes], /) -> dict[bytes, NarInfo]:
        return await thread_to_its_end(self._whole, output_hashes)

    async def existing(self, output_hashes: Sequence[bytes], /) -> dict[bytes, StorePath]:
        return {output_hash: narinfo.store_path for output_hash, narinfo in (await self.get_many(output_hashes)).items()}

    async def put_nar(self, file: AsyncIterable[bytes], suffix: str) -> NarFile:
        unfinished = UnfinishedFile(self._unfinished)
        sha256 = hashlib.sha256()
        size = 0

        def write(piece: bytes) -> None:
            with self._errors():
                sha256.update(piece)
                unfinished.write(piece)

        def open_it() -> None:
            with self._errors():
                unfinished.open()

        def publish() -> str:
            name = f"{nixbase32.encode(sha256.digest())}.nar{suffix}"
            with self._errors():
                # A file of this name has the same content, unless it is damaged.
                unfinished.move_to(self._directory / _NARS / name)
            return f"{_NARS}/{name}"

        try:
            await thread_to_its_end(open_it)
            async for piece in file:
                await thread_to_its_end(write, piece)
                size += len(piece)
            url = await thread_to_its_end(publish)
        finally:
            await thread_to_its_end(unfinished.discard)
        return NarFile(url, size, sha256.digest())

    async def put(self, narinfo: NarInfo, /) -> None:
        await thread_to_its_end(self._put, narinfo)

    async def close(self) -> None:
        await thread_to_its_end(tidy, self._unfinished)

    def _prepare(self) -> None:
        nars = self._directory / _NARS
        with self._errors():
            is_new = not self._directory.is_dir()
            nars.mkdir(parents=True, exist_ok=True)
            if nars.is_symlink():
                raise InvalidError(f"{nars} is a symlink, and none is followed in a cache; move the cache as a whole")
            if is_new:
                sync_directory(self._directory.parent)
            tidy(self._unfinished)
            told = self._files.read(cache_info.NAME, MAX_CACHE_INFO)
            if told is None:
                introduction = f"StoreDir: {self._store_dir}\nWantMassQuery: 1\n".encode()
                if self._new_file(cache_info.NAME, introduction):
                    return
                told = self._files.read(cache_info.NAME, MAX_CACHE_INFO) or b""
        its = CacheInfo.parse(told).store_dir
        if its not in (None, self._store_dir):
            raise InvalidError(f"{self.name} is a cache for {its[:100]!r}, not for {self._store_dir}")

    def _whole(self, output_hashes: Sequence[bytes]) -> dict[bytes, NarInfo]:
        found: dict[bytes, NarInfo] = {}
        for output_hash in output_hashes:
            try:
                narinfo = self._narinfo(output_hash)
            except (InvalidError, UnavailableError):
                continue  # `put` tells of it
            if narinfo is not None and self._has_file_of(narinfo):
                found[output_hash] = narinfo
        return found

    def _narinfo(self, output_hash: bytes) -> NarInfo | None:
        text = self._files.read(narinfo_name(output_hash), MAX_NARINFO)
        narinfo = None if text is None else NarInfo.parse(text, self._store_dir)
        if narinfo is not None and narinfo.store_path.output_hash != output_hash:
            raise InvalidError(f"it describes {narinfo.store_path}")
        return narinfo

    def _has_file_of(self, narinfo: NarInfo) -> bool:
        try:
            size = self._files.size(narinfo.url)
        except (InvalidError, UnavailableError):
            return False
        return size is not None and (not narinfo.file_size or size == narinfo.file_size)

    def _put(self, narinfo: NarInfo) -> None:
        output_hash = narinfo.store_path.output_hash
        name = narinfo_name(output_hash)
        with self._errors():
            if self._new_file(name, narinfo.format(self._store_dir)):
                return
            # Others may add signatures to it, too.
            with locked(self._directory):
                try:
                    known = self._narinfo(output_hash)
                except InvalidError as error:
                    raise InvalidError(
                        f"{self._directory / name} cannot be read, and is not overwritten: {error}; remove it, or mend it"
                    ) from None
                merged = narinfo if known is None else self._merged(known, narinfo)
                if merged != known:
                    with unfinished_file(self._unfinished) as file:
                        file.write(merged.format(self._store_dir))
                        file.move_to(self._directory / name)

    def _merged(self, known: NarInfo, newer: NarInfo) -> NarInfo:
        """The narinfo that takes the place of a known one."""
        if self._has_file_of(known):
            return known.merged(newer)
        # Its NAR is lost. The signatures still hold where the NAR is the same.
        signatures = known.signatures if known.nar == newer.nar and set(known.references) == set(newer.references) else ()
        return replace(newer, signatures=tuple(dict.fromkeys((*newer.signatures, *signatures))))

    def _new_file(self, name: str, data: bytes) -> bool:
        """Store a small file; False if there is one of this name."""
        if (self._directory / name).is_file():
            return False
        with unfinished_file(self._unfinished) as file:
            file.write(data)
            return file.link_to(self._directory / name)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Errors of the operating system become ours."""
        try:
            yield
        except OSError as error:
            where = error.filename or self._directory
            message = f"cannot write to {where}: {error.strerror}"
            match error.errno:
                case errno.ENOSPC | errno.EDQUOT | errno.EFBIG:
                    raise ExhaustedError(f"{message}; free some space and try again") from error
                case errno.EACCES | errno.EPERM | errno.EROFS:
                    raise DeniedError(message) from error
                case errno.ENOTDIR | errno.EEXIST | errno.EISDIR | errno.ENAMETOOLONG | errno.ELOOP:
                    raise InvalidError(message) from error
                case _:
                    raise UnavailableError(message) from error
