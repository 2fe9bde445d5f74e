"""Stores in a packed bucket, for tests."""

from __future__ import annotations

from pathlib import Path

from obstore.store import MemoryStore

from tvix_store.backends.objectstore import packed_store
from tvix_store.backends.objectstore.bucket import Bucket
from tvix_store.backends.objectstore.directory_bucket import DirectoryBucket
from tvix_store.backends.objectstore.packed.engine import PACK_SIZE
from tvix_store.backends.objectstore.settings import Settings
from tvix_store.chunking import DEFAULT_SIZES
from tvix_store.services.store import Store


def memory_bucket() -> Bucket:
    return Bucket(MemoryStore(), "memory")


def file_bucket(directory: Path) -> Bucket:
    directory.mkdir(exist_ok=True)
    return DirectoryBucket(directory, "files")


async def open_packed(
    bucket: Bucket, views: Path, *, chunk_average: int = DEFAULT_SIZES.average, pack_size: int = PACK_SIZE
) -> Store:
    return await packed_store(bucket, Settings(layout="packed", chunk_average=chunk_average), views, pack_size)
