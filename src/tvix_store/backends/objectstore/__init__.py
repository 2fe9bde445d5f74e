"""The backend `objectstore+…://`: a bucket of an object store, or a directory used as one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from tvix_store.backends.objectstore.address import FEW_RETRIES, BucketAddress
from tvix_store.backends.objectstore.bucket import Bucket
from tvix_store.backends.objectstore.nars import BucketNars
from tvix_store.backends.objectstore.packed.blobs import PackedBlobs
from tvix_store.backends.objectstore.packed.directories import PackedDirectories
from tvix_store.backends.objectstore.packed.engine import Engine, PackedSettings
from tvix_store.backends.objectstore.packed.frames import PackedFrames
from tvix_store.backends.objectstore.packed.granular import PackedAssembling, PackedGranular
from tvix_store.backends.objectstore.packed.nars import PackedNars
from tvix_store.backends.objectstore.packed.staging import PackedStaging
from tvix_store.backends.objectstore.packed.trees import Trees
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
from tvix_store.layers.staging_beside import StagingBeside
from tvix_store.services.assembling import Assembling
from tvix_store.services.blobs import BlobService
from tvix_store.services.directories import DirectoryService
from tvix_store.services.nar import KnownNars
from tvix_store.services.store import Store


async def open_store(address: BucketAddress, wanted: Mapping[str, object], views: Path, *, create: bool = True) -> Store:
    """Open the store in a bucket. An empty bucket becomes one, with the settings that are `wanted`, if it is to `create`.

    `views` is a directory of this machine for what is known of buckets in the packed layout. It may be deleted at any time.

    Raises:
        NoStoreError: the bucket is empty, or has something else.
        InvalidError: it was made with other settings than are wanted, or by a newer version.
        UnavailableError, DeniedError: it cannot be read, or not be written to.
    """
    bucket = address.open(create=create)
    settings = await load_or_create(bucket, _prober(address, bucket), wanted, create=create)
    return await packed_store(bucket, settings, views) if settings.layout == "packed" else store_in(bucket, settings)


def store_in(bucket: Bucket, settings: Settings) -> Store:
    """The store in a bucket that has these settings, in the layout of snix."""
    blobs, directories = SnixBlobs(bucket, settings.sizes), SnixDirectories(bucket)
    known_nars = BucketNars(bucket, MemoryNars())
    return _store(bucket, settings, blobs, directories, known_nars, blobs, BucketPathInfos(bucket))


async def packed_store(bucket: Bucket, settings: Settings, views: Path, packing: PackedSettings | None = None) -> Store:
    """The store in a bucket that has these settings, in the packed layout. Nothing is asked of the bucket yet.

    Raises:
        DeniedError, ExhaustedError, UnavailableError: there can be no view in a directory below `views`.
    """
    identity = settings.identity(bucket.name)
    engine = await Engine.open(bucket, views / identity.hex(), identity, packing or PackedSettings(settings.sizes))
    trees = Trees(engine)
    blobs, directories = PackedBlobs(engine, trees), PackedDirectories(engine, trees)
    known_nars, frames = PackedNars(engine), PackedFrames(engine)
    path_infos = BucketPathInfos(bucket, known_nars.note)
    store = _store(bucket, settings, blobs, directories, known_nars, PackedAssembling(engine), path_infos)
    assert store.records is not None

    async def epoch() -> int:
        return engine.view.epoch

    async def close() -> None:
        await engine.close()
        await bucket.close()

    return replace(
        store,
        frames=frames,
        granular=PackedGranular(engine, blobs, directories, frames),
        staging=StagingBeside(PackedStaging(engine, trees), store.records),
        keeps_plans=False,  # a tree object is all that is needed for one
        epoch=epoch,
        close=close,
    )


def _store(
    bucket: Bucket,
    settings: Settings,
    blobs: BlobService,
    directories: DirectoryService,
    known_nars: KnownNars,
    assembling: Assembling,
    path_infos: BucketPathInfos,
) -> Store:
    """What a store in a bucket has in both layouts."""
    records = BucketRecords(bucket)
    return Store(
        name=bucket.name,
        blobs=blobs,
        directories=directories,
        path_infos=path_infos,
        nar=RememberingNarService(blobs, directories, known_nars),
        known_nars=known_nars,
        records=records,
        assembling=assembling,
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
