"""DirectoryBucket: a directory as a bucket. `obstore` reads it; we write it.

`obstore` syncs nothing, and cannot replace a file on a condition. So files are written here: each is complete, and on the disk,
before it has its name. Who replaces a file holds a lock (flock) on its directory: many processes of one machine may write.
"""

from __future__ import annotations

import asyncio
import ctypes
import fcntl
import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from obstore.store import LocalStore

from tvix_store.backends.objectstore.bucket import MOST_WHOLE, Bucket, Found, Version
from tvix_store.durable_file import sync_directory
from tvix_store.errors import UnavailableError, of_disk

_UNFINISHED = ".tvix-store-unfinished"
"""The directory of files that have no name yet."""


class DirectoryBucket(Bucket):
    """The files below `directory`, which is there. A key is a path in it."""

    def __init__(self, directory: Path, name: str) -> None:
        super().__init__(LocalStore(directory), name)
        self._directory = directory

    async def get(self, key: str, most: int = MOST_WHOLE) -> Found | None:
        found = await super().get(key, most)
        return found and Found(found.data, _version(found.data))

    async def put(self, key: str, data: bytes | memoryview) -> None:
        async with self._turns:
            await asyncio.to_thread(self._write, key, data)

    async def create(self, key: str, data: bytes) -> bool:
        async with self._turns:
            return await asyncio.to_thread(self._write_if, key, data, None)

    async def replace(self, key: str, data: bytes, version: Version) -> bool:
        async with self._turns:
            return await asyncio.to_thread(self._write_if, key, data, version)

    async def sync(self) -> None:
        await asyncio.to_thread(self._sync_all)

    async def delete(self, keys: Sequence[str]) -> None:
        async with self._turns:
            await asyncio.to_thread(self._remove, keys)

    def _write(self, key: str, data: bytes | memoryview) -> None:
        path = self._directory / key
        with self._disk_errors(key), self._unfinished(data) as unfinished, self._locked(path.parent):
            unfinished.replace(path)

    def _write_if(self, key: str, data: bytes, version: Version | None) -> bool:
        path = self._directory / key
        self._sync_all()  # what it refers to comes first
        with self._disk_errors(key), self._unfinished(data) as unfinished, self._locked(path.parent):
            try:
                there = _version(path.read_bytes())
            except FileNotFoundError:
                there = None
            if there != version:
                return False
            unfinished.replace(path)
            sync_directory(path.parent)
        return True

    def _remove(self, keys: Sequence[str]) -> None:
        for key in keys:
            path = self._directory / key
            with self._disk_errors(key), suppress(FileNotFoundError):
                if not path.exists():
                    continue
                with self._locked(path.parent):
                    path.unlink()
                    sync_directory(path.parent)

    @contextmanager
    def _unfinished(self, data: bytes | memoryview) -> Iterator[Path]:
        """A file with `data` that is on the disk. It has gone at the end, if it was not renamed."""
        directory = self._directory / _UNFINISHED
        path = directory / os.urandom(12).hex()
        try:
            file = path.open("xb", buffering=0)
        except FileNotFoundError:
            directory.mkdir(exist_ok=True)
            file = path.open("xb", buffering=0)
        try:
            with file:
                view = memoryview(data)
                while view:
                    view = view[file.write(view) :]
                os.fsync(file.fileno())
            yield path
        finally:
            path.unlink(missing_ok=True)

    @contextmanager
    def _locked(self, directory: Path) -> Iterator[None]:
        """The only writer in a directory, which is made where it is missing."""
        try:
            fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            self._make(directory)
            fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def _make(self, directory: Path) -> None:
        """A directory with those above it, up to the bucket's own; their names are on the disk."""
        if not directory.parent.is_dir():
            self._make(directory.parent)
        directory.mkdir(exist_ok=True)
        sync_directory(directory.parent)

    def _sync_all(self) -> None:
        """All that this and other processes have put, by one call for the whole file system."""
        with self._disk_errors("/"):
            fd = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            if _LIBC.syncfs(fd):
                raise UnavailableError(f"{self.name}: {os.strerror(ctypes.get_errno())}")
        finally:
            os.close(fd)

    @contextmanager
    def _disk_errors(self, key: str) -> Iterator[None]:
        try:
            yield
        except (FileNotFoundError, NotADirectoryError) as error:  # what was the bucket is there no more
            raise UnavailableError(f"{self.name}: {key}: {error.strerror}") from None
        except OSError as error:
            raise of_disk(error, f"{self.name}: {key}: {error.strerror}", UnavailableError) from None


_LIBC = ctypes.CDLL(None, use_errno=True)


def _version(data: bytes) -> Version:
    """The name of a content. Contents that are replaced on a condition have nonces, so that none comes again."""
    return Version(hashlib.sha256(data).hexdigest(), None)
