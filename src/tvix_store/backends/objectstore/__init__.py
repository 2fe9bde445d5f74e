"""The backend `objectstore+…://`: a bucket of an object store, or a directory used as one."""

from __future__ import annotations

from collections.abc import Mapping

from tvix_store.backends.objectstore.address import FEW_RETRIES, BucketAddress
from tvix_store.backends.objectstore.bucket import Bucket
from tvix_store.backends.objectstore.nars import BucketNars
from tvix_store.backends.objectstore.path_infos import BucketPathInfos
from tvix_store.backends.objectstore.records import BucketRecords
from tvix_store.backends.objectstore.removal import BucketRemoval
from tvix_store.backends.objectstore.settings import Settings, load_or_create
from tvix_store.backends.objectstore.snix.blobs import SnixBlobs
from tvix_store.backends.objectstore.snix.directories import SnixDirectories
from tvix_store.layers.blob_deltas import BlobDeltas
from tvix_store.layers.memory_nars import MemoryNars
from tvix_store.layers.named_paths import ListedNames
from tvix_store.layers.remembering_nar import RememberingNarService
from tvix_store.services.store import Store


async def open_store(address: BucketAddress, wanted: Mapping[str, object], *, create: bool = True) -> Store:
    """Open the store in a bucket. An empty bucket becomes one, with the settings that are `wanted`, if it is to `create`.

    Raises:
        NoStoreError: the bucket is empty, or has something else.
        InvalidError: it was made with other settings than are wanted, or by a newer version.
        UnavailableError, DeniedError: it cannot be read, or not be written to.
    """
    bucket = address.open(create=create)
    settings = await load_or_create(bucket, _prober(address, bucket), wanted, create=create)
    return store_in(bucket, settings)


def store_in(bucket: Bucket, settings: Settings) -> Store:
    """The store in a bucket that has these settings."""
    blobs, directories = SnixBlobs(bucket, settings.sizes), SnixDirectories(bucket)
    path_infos, records, known_nars = BucketPathInfos(bucket), BucketRecords(bucket), BucketNars(bucket, MemoryNars())

    return Store(
        name=bucket.name,
        blobs=blobs,
        directories=directories,
        path_infos=path_infos,
        nar=RememberingNarService(blobs, directories, known_nars),
        known_nars=known_nars,
        records=records,
        assembling=blobs,
        deltas=BlobDeltas(blobs),
        named_paths=ListedNames(path_infos),
        removal=BucketRemoval(bucket, path_infos.presence, records),
        store_dir=settings.store_dir,
        size_rule=settings.rule,
        check=bucket.check,
        sync=bucket.sync,
        close=bucket.close,
    )


def _prober(address: BucketAddress, bucket: Bucket) -> Bucket:
    """The same bucket, with few tries. One in memory exists once."""
    return bucket if address.scheme == "memory" else address.open(create=False, retries=FEW_RETRIES)
